-- Add an event to a list, unless one of its name was added lately. KEYS: the name's; the list.
-- ARGV: TTL in milliseconds, event, maximum length of the list, TTL of the list in milliseconds, when.
-- A key with a longer TTL was created before the clock was set back, and is ignored.
if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[1])
end
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then
  return 0
end
redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('LTRIM', KEYS[2], 0, ARGV[3] - 1)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
