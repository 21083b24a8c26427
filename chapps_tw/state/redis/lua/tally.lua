-- Return the instances in a client's tally, each followed by its time, oldest first. ARGV: when.
local ends = redis.call('ZSCORE', KEYS[1], '')
if not ends or tonumber(ends) <= now then
  return {}
end
return redis.call('ZRANGE', KEYS[1], 0, -2, 'WITHSCORES')
