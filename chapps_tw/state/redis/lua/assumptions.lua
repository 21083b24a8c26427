-- Prelude of scripts that depend on cached verdicts: returns 12 (outdated) if one has changed, or was cached before the
-- clock was set back: see verdicts.lua. The first KEYS are those of the verdicts; the last of ARGV before "when" are
-- their expected values, and their number. Removes them all, so that the script finds only its own.
for _ = 1, tonumber(table.remove(ARGV, #ARGV - 1)) do
  local key, expected = table.remove(KEYS, 1), table.remove(ARGV, #ARGV - 1)
  if redis.call('GET', key) ~= expected or redis.call('PTTL', key) > tonumber(string.match(expected, '%d+$')) then
    return {12, -1}
  end
end
