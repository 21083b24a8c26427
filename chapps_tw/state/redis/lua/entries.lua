-- An account: its messages, and the windows that contain them. ARGV[1]: "1" to change nothing.
-- KEYS of an account: a hash of versions before, with "last"; a list of "time instance", an entry for each message in
-- the order of counting; a hash of instance -> "time cost recipient ..."; a sorted set of the reserved instances by the
-- end of their reservation.
-- In the second hash, the field '' has the windows, as doubles: the number of entries, how many of them are void, the
-- time of writing, the time of the last message, the end of the TTL, when the first reservation ends (or before), and
-- for each window length in use: the length, the sum of its messages, the index of its first entry, the time of that (or
-- infinity), and when the window was last asked for. So a message is stored once, and no sum is made anew.
-- An entry is void if its message was given back, or counted again later.
local dry = ARGV[1] == '1'
local NEVER, SLICE, HEAD, PART = math.huge, 400, 48, 40

-- Most requests need none of these functions, so they are made when they are needed.
local function entries_of()
  -- Return entries of the list, their instances, and the cost of each, false if it is void.
  local function read(account, first, last)
    local entries, instances, costs = redis.call('LRANGE', account.log, first, last), {}, {}
    if #entries > 0 then
      local find, sub, match = string.find, string.sub, string.match
      for i = 1, #entries do
        instances[i] = sub(entries[i], find(entries[i], ' ', 1, true) + 1)
      end
      local found = redis.call('HMGET', account.messages, unpack(instances))
      for i = 1, #entries do
        local time = sub(entries[i], 1, -#instances[i] - 1)
        local message = found[i]
        local void = not message or sub(message, 1, #time) ~= time or account.gone[instances[i]]
        costs[i] = not void and tonumber(match(message, '^%d+', #time + 1))
      end
    end
    return entries, instances, costs
  end

  -- From an index on, find the first message later than "from". Returns its index, its time, and the cost of those before.
  local function walk(account, index, from)
    local sum, seen, step = 0, {}, 4
    repeat
      local entries, _, costs = read(account, index, index + step - 1)
      for i, entry in ipairs(entries) do
        -- A message that was given back and counted again in one microsecond has two equal entries: one of them is void.
        if costs[i] and not seen[entry] then
          local time = tonumber(string.match(entry, '^%d+'))
          if time > from then
            return index + i - 1, time, sum
          end
          sum = sum + costs[i]
          seen[entry] = account.void > 0 or nil
        end
      end
      index = index + #entries
      local ended = #entries < step
      step = math.min(4 * step, SLICE)
    until ended
    return index, NEVER, sum
  end

  -- Return the index of the first entry later than "from".
  local function seek(account, from)
    local low, high = 0, account.size
    while low < high do
      local middle = math.floor((low + high) / 2)
      local entry = redis.call('LINDEX', account.log, middle)
      if not entry or tonumber(string.match(entry, '^%d+')) > from then
        high = middle
      else
        low = middle + 1
      end
    end
    return low
  end

  -- Return the cost of the entries from an index to before another.
  local function cost_of(account, first, last)
    local sum, seen = 0, {}
    for index = first, last - 1, SLICE do
      local entries, _, costs = read(account, index, math.min(index + SLICE, last) - 1)
      for i = 1, #entries do
        if costs[i] and not seen[entries[i]] then
          sum = sum + costs[i]
          seen[entries[i]] = account.void > 0 or nil
        end
      end
    end
    return sum
  end

  -- Make the sum of a window that has none, from that of the window whose first entry is nearest, or from nothing at the
  -- end of the list.
  local function measure(account, window, least)
    local from = now - window.length
    local first = math.max(seek(account, from), least)
    local nearest, sum = account.size, 0
    for _, each in ipairs(account.windows) do
      if each.first and account.void == 0 and math.abs(each.first - first) < math.abs(nearest - first) then
        nearest, sum = each.first, each.sum
      end
    end
    local between = cost_of(account, math.min(first, nearest), math.max(first, nearest))
    window.sum = first < nearest and sum + between or sum - between
    window.first, window.oldest = walk(account, first, from)
    account.changed = true
  end

  -- Move the begin of a window past void entries, and past the messages that have left it.
  local function slide(account, window)
    local from, sum = now - window.length
    if account.last <= from then
      window.first, window.oldest, window.sum = account.size, NEVER, 0
    else
      window.first, window.oldest, sum = walk(account, window.first, from)
      window.sum = window.oldest < NEVER and window.sum - sum or 0
    end
    account.changed = true
  end

  -- Give back what a message has cost. Follow with "refresh".
  local function give_back(account, instance, time, cost)
    account.void, account.changed = account.void + 1, true
    if dry then
      account.gone[instance] = true
    else
      redis.call('HDEL', account.messages, instance)
    end
    for _, window in ipairs(account.windows) do
      if time > now - window.length then
        window.sum = window.sum - cost
        window.stale = window.stale or time <= window.oldest
      end
    end
  end

  local function refresh(account)
    for _, window in ipairs(account.windows) do
      if window.stale then
        window.stale = nil
        slide(account, window)
      end
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
    end
    account.changed, account.is_reread = true, true
  end

  return {
    read = read, measure = measure, slide = slide, give_back = give_back, refresh = refresh, release = release,
  }
end
