-- Invalidate a cached value of the book. ARGV: a token never issued before, when.
redis.call('HSET', KEYS[1], 'token', ARGV[1])
redis.call('HDEL', KEYS[1], 'value', 'expires', 'kept')
outlast(KEYS[1], 3600 * 1000000)
return 1
