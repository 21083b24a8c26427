-- What keeps an account small and right, besides counting. See entries.lua.

-- Delete entries at the head of the list, and their messages.
local function forget(account, number)
  for index = 0, number - 1, SLICE do
    local _, instances, costs = read(account, index, math.min(index + SLICE, number) - 1)
    local old = {}
    for i, instance in ipairs(instances) do
      old[#old + 1] = costs[i] and instance or nil
    end
    local deleted = #old > 0 and redis.call('HDEL', account.messages, unpack(old)) or 0
    account.void = account.void - (#instances - deleted)
  end
  redis.call('LTRIM', account.log, number, -1)
  account.size = account.size - number
  for _, window in ipairs(account.windows) do
    window.first = window.first - number
  end
end

-- Drop the windows that are not in use any more, since they were not asked for during their own length. Then delete the
-- messages that all windows have left, once they are many.
local function tidy(account)
  local windows, first = account.windows, account.size
  account.longest = 0
  for i = #windows, 1, -1 do
    if windows[i].asked + windows[i].length < now then
      table.remove(windows, i)
    else
      first = math.min(first, windows[i].first)
      account.longest = math.max(account.longest, windows[i].length)
    end
  end
  if first == account.size then
    if first > 0 then
      redis.call('DEL', account.log, account.messages)
      account.size, account.void = 0, 0
      for _, window in ipairs(windows) do
        window.first = 0
      end
    end
  elseif first >= 100 then
    forget(account, first)
  end
end

-- Delete the void entries.
local function compact(account)
  local seen = {}
  for index = 0, account.size - 1, SLICE do
    local entries, _, costs = read(account, index, math.min(index + SLICE, account.size) - 1)
    local live = {}
    for i, entry in ipairs(entries) do
      if costs[i] and not seen[entry] then
        seen[entry], live[#live + 1] = true, entry
      end
    end
    if #live > 0 then
      redis.call('RPUSH', account.log, unpack(live))
    end
  end
  redis.call('LTRIM', account.log, account.size, -1)
  account.size, account.void = account.size - account.void, 0
  for _, window in ipairs(account.windows) do
    measure(account, window, 0)
  end
end

-- Count a message from now whose time is in the future. Its entry was removed from the list; returns whether it was void.
local function count_from_now(account, time, instance)
  local message = redis.call('HGET', account.messages, instance)
  if not message or string.match(message, '^%d+') ~= time then
    return true
  end
  redis.call('RPUSH', account.log, digits(now) .. ' ' .. instance)
  redis.call('HSET', account.messages, instance, digits(now) .. string.match(message, '^%d+(.*)$'))
  local ends = account.held < NEVER and redis.call('ZSCORE', account.reserved, instance)
  if ends then
    local held = now + tonumber(ends) - tonumber(time)
    redis.call('ZADD', account.reserved, digits(held), instance)
    account.held = math.min(account.held, held)
  end
  return false
end

-- Count messages with a time in the future, from before the clock was set back, from now.
local function set_back(account)
  local first, ahead = account.size, {}
  for _, window in ipairs(account.windows) do
    first = math.min(first, window.first)
  end
  if not dry then
    if first > 0 and #account.windows > 0 then
      forget(account, first)
    end
    first = 0
    local entry = redis.call('LINDEX', account.log, -1)
    while entry and tonumber(string.match(entry, '^%d+')) > now do
      ahead[#ahead + 1] = redis.call('RPOP', account.log)
      entry = redis.call('LINDEX', account.log, -1)
    end
    for i = #ahead, 1, -1 do
      if count_from_now(account, string.match(ahead[i], '^(%d+) (.*)$')) then
        account.size, account.void = account.size - 1, account.void - 1
      end
    end
    if account.held < NEVER then
      redis.call('HSET', account.key, 'held', digits(account.held))
    end
  end
  account.last = math.min(account.last, now)
  for _, window in ipairs(account.windows) do
    measure(account, window, first)
  end
end

-- Give back the messages whose reservation is over.
local function release(account)
  local done = 0
  repeat
    local over = redis.call('ZRANGEBYSCORE', account.reserved, '-inf', digits(now), 'LIMIT', done, SLICE)
    local messages = #over > 0 and redis.call('HMGET', account.messages, unpack(over)) or over
    for i, instance in ipairs(over) do
      local time, cost = string.match(messages[i] or '', '^(%d+) (%d+)')
      if time then
        give_back(account, instance, tonumber(time), tonumber(cost))
      end
    end
    done = done + #over
  until #over < SLICE
  refresh(account)
  if not dry then
    redis.call('ZREMRANGEBYSCORE', account.reserved, '-inf', digits(now))
    account.held = tonumber(redis.call('ZRANGE', account.reserved, 0, 0, 'WITHSCORES')[2]) or NEVER
    redis.call('HSET', account.key, 'held', account.held < NEVER and digits(account.held) or '')
  end
end

-- Write what has changed.
local function save(account)
  if account.void > 100 and account.void > account.size / 2 then
    compact(account)
  end
  local longest, numbers = math.max(account.longest, account.min_delta), {account.size, account.void, now}
  for _, window in ipairs(account.windows) do
    local n = #numbers
    numbers[n + 1], numbers[n + 2], numbers[n + 3] = window.length, window.sum, window.first
    numbers[n + 4], numbers[n + 5] = window.oldest, window.asked
  end
  -- If another program has changed the list, all sums are made anew the next time.
  local packed = account.is_lost and '' or struct.pack('<' .. string.rep('d', #numbers), unpack(numbers))
  redis.call('HSET', account.key, 'windows', packed, 'last', digits(account.last))
  if account.stays < now + longest then
    -- An eighth longer than necessary, so that this is rarely done.
    account.stays, account.is_new = now + longest * 1.125, true
    redis.call('HSET', account.key, 'stays', digits(account.stays))
  end
  if account.is_new then
    for _, key in ipairs({account.key, account.log, account.messages, account.reserved}) do
      outlast(key, account.stays - now)
    end
  end
end
