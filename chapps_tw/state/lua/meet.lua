-- Greylist a message. KEYS: hash with the domain's flag; the tuple's "first last"; the client's
-- tally, a sorted set of instances by time, in which '' stands for the time when it is forgotten.
-- ARGV: dry, deferral, lifetime, threshold, forced, instance [, fill's token, value, ttl], when.
-- Times in microseconds. Returns outcome, wait, tally [, token].
local dry, deferral, lifetime = ARGV[1] == '1', tonumber(ARGV[2]), tonumber(ARGV[3])
local threshold, forced, instance = tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6]

local known = redis.call('HMGET', KEYS[1], 'value', 'expires', 'token', 'kept')
local flag = recall(KEYS[1], known, 6, dry)
if not forced then
  if not flag then
    return {0, 0, 0, known[3] or ''}
  elseif flag == 0 then
    return {7, 0, 0}
  end
end

local tally, ends = 0, redis.call('ZSCORE', KEYS[3], '')
if ends and tonumber(ends) > now then
  tally = redis.call('ZCARD', KEYS[3]) - 1
  if tonumber(ends) > now + lifetime and not dry then
    -- The clock was ahead: what counts later than now counts from now.
    for _, each in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. digits(now), '+inf')) do
      redis.call('ZADD', KEYS[3], digits(now), each)
    end
    redis.call('ZADD', KEYS[3], digits(now + lifetime), '')
  end
end

local function count()
  if threshold == 0 or instance == '' or (tally > 0 and redis.call('ZSCORE', KEYS[3], instance)) then
    return tally
  end
  if not dry then
    if tally == 0 and ends then
      redis.call('DEL', KEYS[3])
    end
    redis.call('ZADD', KEYS[3], digits(now), instance, digits(now + lifetime), '')
    if tally >= threshold then
      redis.call('ZREMRANGEBYRANK', KEYS[3], 0, tally - threshold)
    end
    outlast(KEYS[3], lifetime)
  end
  return math.min(tally + 1, threshold)
end

if threshold > 0 and tally >= threshold then
  return {11, 0, count()}
end

local tuple = redis.call('GET', KEYS[2])
local first, last
if tuple then
  first, last = string.match(tuple, '^(%d+) (%d+)$')
end
local outcome, wait = 10, 0
-- One of the far future was met by a clock that was ahead, nobody knows when.
if not first or math.abs(now - tonumber(last)) > lifetime then
  first = digits(now)
  outcome = 8
elseif tonumber(first) > now then
  -- The clock was ahead, and nobody is made to wait until it is then.
  first = digits(now)
end
wait = math.max(tonumber(first) + deferral - now, 0)
if wait == 0 then
  outcome = 10
elseif outcome == 10 then
  outcome = 9
end
if not dry then
  redis.call('SET', KEYS[2], first .. ' ' .. digits(now), 'PX', digits(lifetime / 1000 + 60000))
end
return {outcome, wait, outcome == 10 and count() or tally}
