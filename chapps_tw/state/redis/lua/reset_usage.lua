-- Delete all counts of a user; return the transmissions that were in the window. ARGV: interval (microseconds), when.
local used = slide(tonumber(redis.call('HGET', KEYS[1], 'used')) or 0, now - tonumber(ARGV[1]), true)
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HDEL', KEYS[1], 'used', 'last')
return used
