-- Record a tuple as retried after its deferral. KEYS: the tuple, "first last". ARGV: deferral, pass_ttl, in microseconds.
local first = math.max(now - tonumber(ARGV[1]), 0)
redis.call('SET', KEYS[1], digits(first) .. ' ' .. digits(now), 'PX', digits(ARGV[2] / 1000 + 60000))
