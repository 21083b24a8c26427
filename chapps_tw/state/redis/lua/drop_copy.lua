-- Forget a copy of what the book says. ARGV: a token never given before, when.
redis.call('HSET', KEYS[1], 'token', ARGV[1])
redis.call('HDEL', KEYS[1], 'value', 'expires', 'kept')
outlast(KEYS[1], 3600 * 1000000)
return 1
