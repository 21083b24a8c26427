-- What keeps an account small and right, besides counting; made when it is needed. See entries.lua.
local function upkeep_of(read, measure)
  -- Delete entries at the head of the list, and their messages, which all windows had left at a time.
  local function forget(account, number, at)
    for index = 0, number - 1, SLICE do
      local entries, instances, costs = read(account, index, math.min(index + SLICE, number) - 1)
      local old = {}
      for i, instance in ipairs(instances) do
        -- A void entry may equal a later one, whose message still counts.
        if costs[i] and tonumber(string.match(entries[i], '^%d+')) <= at - account.longest then
          old[#old + 1] = instance
        end
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
        account.size, account.void, account.is_new = 0, 0, true
        for _, window in ipairs(windows) do
          window.first = 0
        end
      end
    elseif first >= 100 then
      forget(account, first, now)
    end
    account.is_reread = true
  end

  local function measure_all(account, least)
    for _, window in ipairs(account.windows) do
      window.first = nil
    end
    for _, window in ipairs(account.windows) do
      measure(account, window, least)
    end
  end

  -- Delete the void entries.
  local function compact(account)
    local seen, size = {}, 0
    for index = 0, account.size - 1, SLICE do
      local entries, _, costs = read(account, index, math.min(index + SLICE, account.size) - 1)
      local live = {}
      for i, entry in ipairs(entries) do
        if costs[i] and not seen[entry] then
          seen[entry], live[#live + 1] = true, entry
        end
      end
      if #live > 0 then
        size = size + #live
        redis.call('RPUSH', account.log, unpack(live))
      end
    end
    redis.call('LTRIM', account.log, account.size, -1)
    account.size, account.void = size, 0
    measure_all(account, 0)
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
  local function set_back(account, at)
    local first, ahead = account.size, {}
    for _, window in ipairs(account.windows) do
      first = math.min(first, window.first)
    end
    if dry then
      -- What had left all windows by then does not come back.
      account.left = at - account.longest
    else
      if first > 0 and #account.windows > 0 then
        forget(account, first, at)
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
    end
    account.is_reread = true
    account.last = math.min(account.last, now)
    measure_all(account, first)
  end

  return {tidy = tidy, compact = compact, set_back = set_back}
end

local made
local function rarely()
  if not made then
    made = entries_of()
    for name, each in pairs(upkeep_of(made.read, made.measure)) do
      made[name] = each
    end
  end
  return made
end
