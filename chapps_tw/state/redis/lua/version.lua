-- Prelude of scripts that depend on cached values: returns OUTDATED if one was dropped since the caller has read them.
-- The last of KEYS has the stamp, which each drop changes; the last of ARGV before "when" is the one that is expected, or
-- "" for any. Removes both, and "when", so that the script finds only its own.
do
  local last = #ARGV - 1
  local expected = ARGV[last]
  ARGV[last], ARGV[last + 1] = nil, nil
  if expected ~= '' and redis.call('GET', KEYS[#KEYS]) ~= expected then
    return {10}
  end
  KEYS[#KEYS] = nil
end
