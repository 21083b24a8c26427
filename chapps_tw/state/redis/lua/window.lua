-- The rolling window of a user. KEYS[1]: hash with "used" and "last". KEYS[2]: list of
-- "time instance", in the order of counting. KEYS[3]: hash of instance -> "time cost recipient ...".
local function time_of(entry)
  return tonumber(string.match(entry, '^%d+'))
end

-- Count messages with a time in the future, from before the clock was set back, from now.
local function count_from_now()
  local ahead = {}
  local entry = redis.call('LINDEX', KEYS[2], -1)
  while entry and time_of(entry) > now do
    ahead[#ahead + 1] = string.sub(redis.call('RPOP', KEYS[2]), string.find(entry, ' ', 1, true) + 1)
    entry = redis.call('LINDEX', KEYS[2], -1)
  end
  for i = #ahead, 1, -1 do
    redis.call('RPUSH', KEYS[2], digits(now) .. ' ' .. ahead[i])
    local message = redis.call('HGET', KEYS[3], ahead[i])
    if message then
      redis.call('HSET', KEYS[3], ahead[i], digits(now) .. string.match(message, '^%d+(.*)$'))
    end
  end
  redis.call('HSET', KEYS[1], 'last', digits(now))
end

-- Subtract the messages that were counted at or before "from". Returns the remaining usage, and the number of entries
-- at the head of the list to skip: those that a dry run leaves there.
local function slide(used, from, dry)
  local oldest = redis.call('LINDEX', KEYS[2], 0)
  if not oldest then
    return 0, 0
  end
  if time_of(oldest) > from then
    return used, 0
  end
  local gone, size = 0, redis.call('LLEN', KEYS[2])
  if time_of(redis.call('LINDEX', KEYS[2], -1)) <= from then
    used, gone = 0, size
    if not dry then
      redis.call('DEL', KEYS[2], KEYS[3])
    end
  else
    local old
    repeat
      old = {}
      for _, entry in ipairs(redis.call('LRANGE', KEYS[2], gone, gone + 99)) do
        if time_of(entry) > from then
          break
        end
        old[#old + 1] = string.sub(entry, string.find(entry, ' ', 1, true) + 1)
      end
      if #old > 0 then
        for _, message in ipairs(redis.call('HMGET', KEYS[3], unpack(old))) do
          used = used - (message and tonumber(string.match(message, '^%d+ (%d+)')) or 0)
        end
        if not dry then
          redis.call('HDEL', KEYS[3], unpack(old))
        end
      end
      gone = gone + #old
    until #old < 100
    used = math.max(used, 0)
    if not dry then
      redis.call('LTRIM', KEYS[2], gone, -1)
    end
  end
  if dry then
    return used, gone
  end
  redis.call('HSET', KEYS[1], 'used', digits(used))
  return used, 0
end
