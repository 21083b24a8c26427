-- Return a cached value of the book: "value", "expires", "token" and "kept" (when it was cached) of a hash. A value
-- cached in the future, before the clock was set back, is missing.
-- known: these four fields; ARGV[given + 1] to [given + 3], if present: the token, value and TTL (microseconds) of a
-- fill, which is cached unless this is a dry run.
local function recall(key, known, given, dry)
  if #ARGV > given then
    if not dry and ARGV[given + 1] == (known[3] or '') then
      local ttl = tonumber(ARGV[given + 3])
      redis.call('HSET', key, 'value', ARGV[given + 2], 'expires', digits(now + ttl), 'kept', digits(now))
      outlast(key, ttl)
    end
    return tonumber(ARGV[given + 2])
  end
  return known[1] and tonumber(known[4] or 0) <= now and tonumber(known[2]) > now and tonumber(known[1])
end
