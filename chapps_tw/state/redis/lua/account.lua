-- Return an account whose windows are right now.
local function open(place)
  local key = KEYS[place]
  local found = redis.call('HMGET', key, 'windows', 'last', 'stays', 'held')
  local packed, windows, at = found[1], {}, 0
  local account = {
    key = key, log = KEYS[place + 1], messages = KEYS[place + 2], reserved = KEYS[place + 3], windows = windows,
    last = tonumber(found[2]) or 0, stays = tonumber(found[3]) or 0, held = tonumber(found[4]) or NEVER,
    gone = {}, longest = 0, min_delta = 0,
  }
  if packed and packed ~= '' then
    account.size, account.void, at = struct.unpack('<ddd', packed)
    for offset = 25, #packed, PART do
      local length, sum, first, oldest, asked = struct.unpack('<ddddd', packed, offset)
      windows[#windows + 1] = {length = length, sum = sum, first = first, oldest = oldest, asked = asked}
      account.longest = math.max(account.longest, length)
    end
  else
    account.size, account.void = redis.call('LLEN', account.log), 0
  end
  if at > now or account.last > now then
    set_back(account)
  end
  for _, window in ipairs(windows) do
    if window.oldest <= now - window.length then
      slide(account, window)
    end
  end
  if account.held <= now then
    release(account)
  end
  return account
end

-- Return a window of an account.
local function window_of(account, length)
  for _, window in ipairs(account.windows) do
    if window.length == length then
      account.changed = account.changed or now - window.asked > length / 8
      window.asked = now
      return window
    end
  end
  local window = {length = length, sum = 0, first = account.size, oldest = NEVER, asked = now}
  if account.size > 0 then
    measure(account, window, 0)
  end
  account.windows[#account.windows + 1] = window
  account.longest = math.max(account.longest, length)
  return window
end
