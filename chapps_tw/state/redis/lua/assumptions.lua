-- Prelude of scripts that depend on cached verdicts: returns 12 (outdated) if a verdict has changed. The first KEYS are
-- those of the verdicts; the last of ARGV before "when" are their expected values, and their number. Removes them all,
-- so that the script finds only its own.
for _ = 1, tonumber(table.remove(ARGV, #ARGV - 1)) do
  if redis.call('GET', table.remove(KEYS, 1)) ~= table.remove(ARGV, #ARGV - 1) then
    return {12, -1}
  end
end
