-- Whether a key was not there; it is then made. ARGV: milliseconds to keep it, when.
return redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) and 1 or 0
