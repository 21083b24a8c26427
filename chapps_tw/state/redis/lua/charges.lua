-- Open the accounts and windows of charges. ARGV[2]: five doubles for each: the amount (-1: one more recipient; -2: the
-- recipient, if it is distinct), the limit, the limit with its margin, the length of the window, and the minimum time
-- between two messages. ARGV[3]: the recipient, or "". ARGV[4]: the instance, or "". KEYS: for each charge, those of its
-- account. Times in microseconds.
-- Sets "accounts", and "charges" with "account" and "window" of each. It is one piece: each function takes time to make.
local recipient, instance = ARGV[3], ARGV[4]
local accounts, charges, place = {}, {}, 1
for offset = 1, #ARGV[2], PART do
  local amount, limit, most, length, min_delta = struct.unpack('<ddddd', ARGV[2], offset)
  local account, window = accounts[KEYS[place]]
  local known = account
  if amount == -2 then
    distinct = distinct or distinct_of()
    account = account or distinct.open(place)
    window, place = distinct.window_of(account, length), place + 2
  elseif not account then
    local log, messages = KEYS[place + 1], KEYS[place + 2]
    local found = redis.call('HMGET', messages, '', instance)
    local packed, windows = found[1] or '', {}
    account = {
      log = log, messages = messages, reserved = KEYS[place + 3], message = found[2], windows = windows, gone = {},
      amount = amount, left = 0, longest = 0, min_delta = min_delta, size = 0, void = 0, last = 0, stays = 0, held = NEVER,
    }
    local at = 0
    if packed ~= '' then
      account.size, account.void, at, account.last, account.stays, account.held = struct.unpack('<dddddd', packed)
      for part = HEAD + 1, #packed, PART do
        local each = {}
        each.length, each.sum, each.first, each.oldest, each.asked = struct.unpack('<ddddd', packed, part)
        windows[#windows + 1], account.longest = each, math.max(account.longest, each.length)
      end
    else
      account.size = redis.call('LLEN', log)
      account.last = tonumber(account.size > 0 and redis.call('HGET', KEYS[place], 'last')) or 0
    end
    if at > now or account.last > now then
      rarely().set_back(account, at)
    end
    for _, each in ipairs(windows) do
      if each.oldest <= now - each.length then
        rarely().slide(account, each)
      end
    end
    if account.held <= now then
      rarely().release(account)
    end
  end
  if amount ~= -2 then
    local first = 0
    for _, each in ipairs(account.windows) do
      if each.length == length then
        window = each
      elseif each.length > length and each.first > first then
        first = each.first
      end
    end
    if not window then
      window = {length = length, sum = 0, first = account.size, oldest = NEVER, asked = now}
      if account.size > 0 then
        rarely().measure(account, window, first)
      end
      account.windows[#account.windows + 1] = window
      account.longest = math.max(account.longest, length)
    elseif now - window.asked > length / 8 then
      account.changed = true
    end
    window.asked, place = now, place + 4
    account.min_delta = math.max(account.min_delta, min_delta)
  end
  if not known then
    accounts[KEYS[place - (amount == -2 and 2 or 4)]], accounts[#accounts + 1] = account, account
  end
  charges[#charges + 1] = {account = account, window = window, limit = limit, most = most, min_delta = min_delta}
end
