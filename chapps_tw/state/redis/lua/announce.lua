-- Add or replace the text of a name in a sorted set, and return all that have not expired. KEYS: the set.
-- ARGV: name, text, TTL in milliseconds, when. A member is the name, a zero byte and the text; its score is its end.
local key, name, lifetime = KEYS[1], ARGV[1] .. '\0', ARGV[3] * 1000
redis.call('ZREMRANGEBYSCORE', key, '-inf', digits(now))
-- What ends later was added before the clock was set back.
redis.call('ZREMRANGEBYSCORE', key, '(' .. digits(now + 86400000000), '+inf')
for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
  if string.sub(member, 1, #name) == name then
    redis.call('ZREM', key, member)
  end
end
if lifetime > 0 then
  redis.call('ZADD', key, digits(now + lifetime), name .. ARGV[2])
  outlast(key, lifetime)
end
local found = redis.call('ZRANGE', key, 0, -1)
for place, member in ipairs(found) do
  found[place] = string.sub(member, string.find(member, '\0', 1, true) + 1)
end
return found
