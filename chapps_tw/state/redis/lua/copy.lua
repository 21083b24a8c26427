-- A copy of what the book says: "value", "expires", "token" and "kept" of a hash. One that was kept later than
-- now is of a clock that was ahead.
-- known: those four as they are; ARGV[given + 1] to [given + 3], when there: a fill's token,
-- value and microseconds to keep it. A dry run keeps none.
local function recall(key, known, given, dry)
  if #ARGV > given + 1 then
    if not dry and ARGV[given + 1] == (known[3] or '') then
      local ttl = tonumber(ARGV[given + 3])
      redis.call('HSET', key, 'value', ARGV[given + 2], 'expires', digits(now + ttl), 'kept', digits(now))
      outlast(key, ttl)
    end
    return tonumber(ARGV[given + 2])
  end
  return known[1] and tonumber(known[4] or 0) <= now and tonumber(known[2]) > now and tonumber(known[1])
end
