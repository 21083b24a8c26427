-- Add messages to a client's tally. KEYS: the tally, see greylist.lua. ARGV: tally_ttl (microseconds), threshold, then
-- time (microseconds) and instance of each message, when. Returns how many were new.
local tally_ttl, threshold, added = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
local ends = tonumber(redis.call('ZSCORE', KEYS[1], '') or 0)
if ends > 0 and ends <= now then
  redis.call('DEL', KEYS[1])
end
for i = 3, #ARGV - 1, 2 do
  local at = math.min(tonumber(ARGV[i]), now)
  if at + tally_ttl > now and not redis.call('ZSCORE', KEYS[1], ARGV[i + 1]) then
    ends = math.max(ends, at + tally_ttl)
    redis.call('ZADD', KEYS[1], digits(at), ARGV[i + 1], digits(ends), '')
    added = added + 1
  end
end
if added > 0 then
  local size = redis.call('ZCARD', KEYS[1]) - 1
  if size > threshold then
    redis.call('ZREMRANGEBYRANK', KEYS[1], 0, size - threshold - 1)
  end
  outlast(KEYS[1], ends - now)
end
return added
