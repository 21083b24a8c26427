-- Cache values whose key still has the value of their token, or has expired: an invalidation leaves a tombstone, which
-- lasts longer than a lookup in the book can take.
-- ARGV: TTL in milliseconds, then for each key a token, a text, and the digest of a long text, or "". Then when.
local found = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  local text, digest = ARGV[3 * i], ARGV[3 * i + 1]
  if not found[i] or found[i] == ARGV[3 * i - 1] then
    if digest ~= '' then
      redis.call('SET', key .. ':' .. digest, text, 'PX', ARGV[1])
      text = digest .. '@'
    else
      text = text .. ' '
    end
    redis.call('SET', key, text .. string.format('%s %016.0f', ARGV[1], now), 'PX', ARGV[1])
  end
end
return 1
