-- Return whether a key did not exist, and create it. ARGV: TTL in milliseconds, when.
-- A key with a longer TTL was created before the clock was set back, and is ignored.
if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[1])
end
return redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) and 1 or 0
