-- Invalidate cached verdicts: replace each by a tombstone, so that verdicts read before are not cached.
-- ARGV: the tombstone, its TTL in milliseconds, when. Returns the previous values.
local were = redis.call('MGET', unpack(KEYS))
for _, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
return were
