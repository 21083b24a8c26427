-- Greylist a message. KEYS: hash with the domain's flag; the tuple's "first last"; the client's
-- tally, a sorted set of instances by time, in which '' stands for the time when it is forgotten;
-- and where SPF gave the client a domain, the latter two of its network, those before being the domain's.
-- ARGV: dry, deferral, retry window, lifetime of what has passed, of a tally, threshold, forced,
-- instance [, fill's token, value, ttl], when.
-- Times in microseconds. Returns outcome, wait, tally [, token].
local dry, deferral, retry_window = ARGV[1] == '1', tonumber(ARGV[2]), tonumber(ARGV[3])
local pass_ttl, tally_ttl, threshold = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local forced, instance = ARGV[7] == '1', ARGV[8]

local known = redis.call('HMGET', KEYS[1], 'value', 'expires', 'token')
local flag = recall(KEYS[1], known, 8, dry)
if not forced then
  if not flag then
    return {0, 0, 0, known[3] or ''}
  elseif flag == 0 then
    return {7, 0, 0}
  end
end

local function size(key)
  local ends = redis.call('ZSCORE', key, '')
  if ends and tonumber(ends) > now then
    return redis.call('ZCARD', key) - 1, ends
  end
  return 0, ends
end

-- One that is known by its network alone counts for that.
local counted = KEYS[3]
local tally, ends = size(counted)
if KEYS[5] and tally < threshold then
  local other, other_ends = size(KEYS[5])
  if other >= threshold then
    counted, tally, ends = KEYS[5], other, other_ends
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
  return {11, 0, count()}
end

-- Also the time to take where the clock was ahead: nobody is made to wait until it is then.
local first, met = now, false
local function recall_tuple(key)
  local tuple = redis.call('GET', key)
  if tuple then
    local began, last = string.match(tuple, '^(%d+) (%d+)$')
    began, last = tonumber(began), tonumber(last)
    -- One that was met after its deferral has passed.
    local lifetime = last - began >= deferral and pass_ttl or retry_window
    if now - last <= lifetime then
      first, met = math.min(first, began), true
    end
  end
end

recall_tuple(KEYS[2])
if KEYS[4] then
  recall_tuple(KEYS[4])
end
local wait = math.max(first + deferral - now, 0)
local outcome = wait == 0 and 10 or met and 9 or 8
if not dry then
  local value, lifetime = digits(first) .. ' ' .. digits(now), outcome == 10 and pass_ttl or retry_window
  local ttl = digits(lifetime / 1000 + 60000)
  redis.call('SET', KEYS[2], value, 'PX', ttl)
  if KEYS[4] then
    redis.call('SET', KEYS[4], value, 'PX', ttl)
  end
end
return {outcome, wait, outcome == 10 and count() or tally}
