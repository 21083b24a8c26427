-- Invalidate cached values: replace each by a tombstone, so that values read before are not cached. The last of KEYS has
-- the stamp of all values, see version.lua: the tombstone, which is unique, is the new one.
-- ARGV: the tombstone, its TTL in milliseconds, when. Returns the previous values, as values.lua.
redis.call('SET', KEYS[#KEYS], ARGV[1], 'PX', '86400000')
KEYS[#KEYS] = nil
local were = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  were[i] = with_text(key, were[i])
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
return were
