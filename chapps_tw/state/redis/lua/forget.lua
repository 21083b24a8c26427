-- Delete keys. ARGV: when.
return redis.call('DEL', unpack(KEYS))
