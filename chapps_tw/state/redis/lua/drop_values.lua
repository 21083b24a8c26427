-- Invalidate cached values: replace each by a tombstone, so that values read before are not cached.
-- ARGV: the tombstone, its TTL in milliseconds, when. Returns the previous values, as values.lua.
local were = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  were[i] = with_text(key, were[i])
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
return were
