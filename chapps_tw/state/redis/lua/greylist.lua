-- Check a message against the greylist. KEYS: hash with the domain's flag; the tuple, "first last"; the client's tally,
-- a sorted set of instances by time, in which the score of '' is the expiry. If the client has an SPF domain, tuple and
-- tally are those of the domain, and are followed by those of the network.
-- ARGV: dry, deferral, retry_window, pass_ttl, tally_ttl, threshold, forced, instance [, fill's token, value, ttl].
-- Times in microseconds. Returns outcome, wait, tally [, token].
local dry, deferral, threshold = ARGV[1] == '1', tonumber(ARGV[2]), tonumber(ARGV[6])
local forced, instance = ARGV[7] == '1', ARGV[8]

local known = redis.call('HMGET', KEYS[1], 'value', 'expires', 'token', 'kept')
local flag = recall(KEYS[1], known, 8, dry)
if not forced then
  if not flag then
    return {0, 0, 0, known[3] or ''}
  elseif flag == 0 then
    return {5, 0, 0}
  end
end

local tally_ttl = tonumber(ARGV[5])

-- Clamp times in the future to now, after the clock was set back.
local function count_from_now(name)
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', name, '(' .. digits(now), '+inf')) do
    redis.call('ZADD', name, digits(now), each)
  end
  redis.call('ZADD', name, digits(now + tally_ttl), '')
end

-- Use the tally of the domain if there is one, unless only that of the network has reached the threshold.
local tally, ends, counted = -1
for place = 3, #KEYS, 2 do
  local last = tally < threshold and redis.call('ZSCORE', KEYS[place], '')
  local size = last and tonumber(last) > now and redis.call('ZCARD', KEYS[place]) - 1 or 0
  if size > 0 and tonumber(last) > now + tally_ttl and not dry then
    count_from_now(KEYS[place])
  end
  if place == 3 or tally < threshold and size >= threshold then
    tally, ends, counted = size, last, KEYS[place]
  end
end

local function count()
  if threshold == 0 or instance == '' or (tally > 0 and redis.call('ZSCORE', counted, instance)) then
    return tally
  end
  if not dry then
    if tally == 0 and ends then
      redis.call('DEL', counted)
    end
    redis.call('ZADD', counted, digits(now), instance, digits(now + tally_ttl), '')
    if tally >= threshold then
      redis.call('ZREMRANGEBYRANK', counted, 0, tally - threshold)
    end
    outlast(counted, tally_ttl)
  end
  return math.min(tally + 1, threshold)
end

if threshold > 0 and tally >= threshold then
  return {9, 0, count()}
end

-- A time in the future was recorded before the clock was set back: the client does not wait for it.
local first, seen = now, false
for place = 2, #KEYS, 2 do
  local tuple = redis.call('GET', KEYS[place])
  if tuple then
    local began, last = string.match(tuple, '^(%d+) (%d+)$')
    began, last = tonumber(began), tonumber(last)
    -- A tuple seen again after its deferral has passed. A time in the far future was recorded before the clock was set
    -- back, so the real time is unknown.
    if math.abs(now - last) <= tonumber(ARGV[last - began >= deferral and 4 or 3]) then
      first, seen = math.min(first, began), true
    end
  end
end
local wait = math.max(first + deferral - now, 0)
local outcome = wait == 0 and 8 or seen and 7 or 6
if not dry then
  local value, ttl = digits(first) .. ' ' .. digits(now), digits(ARGV[wait == 0 and 4 or 3] / 1000 + 60000)
  for place = 2, #KEYS, 2 do
    redis.call('SET', KEYS[place], value, 'PX', ttl)
  end
end
return {outcome, wait, outcome == 8 and count() or tally}
