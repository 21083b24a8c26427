-- Forget cached verdicts, and leave a mark in their place so that none older is kept.
-- ARGV: the mark, milliseconds to keep it, when. Returns what each verdict was.
local were = redis.call('MGET', unpack(KEYS))
for _, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
return were
