-- Whether a key was not there; it is then made. ARGV: milliseconds to keep it, when.
-- A key that stays for longer is of a clock that was ahead.
if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[1])
end
return redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) and 1 or 0
