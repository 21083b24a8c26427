-- Return the usage of a user: the cached limit or nothing, the transmissions in the window, and the time of the last
-- message. ARGV: interval (microseconds), when.
local user = redis.call('HMGET', KEYS[1], 'value', 'expires', 'token', 'kept', 'used', 'last')
local used = slide(tonumber(user[5]) or 0, now - tonumber(ARGV[1]), true)
return {recall(KEYS[1], user, 1, true), used, math.min(tonumber(user[6]) or 0, now)}
