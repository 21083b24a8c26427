-- Return cached verdicts as they were stored: "1" or "0", and the TTL in milliseconds. A verdict with a longer
-- remaining TTL was cached before the clock was set back, and is marked with a leading "?". ARGV: when.
local found = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  local ttl = found[i] and string.match(found[i], '^[01] (%d+)$')
  if ttl and redis.call('PTTL', key) > tonumber(ttl) then
    found[i] = '?' .. found[i]
  end
end
return found
