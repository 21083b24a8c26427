-- Prelude of scripts that depend on cached values: returns OUTDATED if one has changed, or was cached before the clock
-- was set back: see values.lua. The last of KEYS are those of the values; the last of ARGV before "when" are what is
-- expected of each, and their number. Removes them, and "when", so that the script finds only its own.
do
  local last, before = #ARGV - 2, #KEYS
  local assumed = tonumber(ARGV[last + 1])
  ARGV[last + 1], ARGV[last + 2] = nil, nil
  if assumed > 0 then
    local found = redis.call('MGET', unpack(KEYS, before - assumed + 1))
    for i = assumed, 1, -1 do
      local key, expected = KEYS[before], ARGV[last]
      if found[i] ~= expected or is_from_the_future(key, expected) then
        return {10}
      end
      KEYS[before], ARGV[last] = nil, nil
      before, last = before - 1, last - 1
    end
  end
end
