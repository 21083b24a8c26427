-- Forget what was counted for a user. ARGV: interval (microseconds), when.
-- Returns how many transmissions that were.
local used = slide(tonumber(redis.call('HGET', KEYS[1], 'used')) or 0, now - tonumber(ARGV[1]), true)
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HDEL', KEYS[1], 'used', 'last')
return used
