-- Cache verdicts whose key still has the value of their token, or has expired: an invalidation leaves a tombstone,
-- which lasts longer than a lookup in the book can take.
-- ARGV: TTL in milliseconds, then a token and a value for each key, when.
for i, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  if not value or value == ARGV[2 * i] then
    redis.call('SET', key, ARGV[2 * i + 1] .. ' ' .. ARGV[1], 'PX', ARGV[1])
  end
end
return 1
