-- Open the accounts and windows of charges. ARGV[2]: five doubles for each: the amount (-1: one more recipient; -2: the
-- recipient, if it is distinct), the limit, the limit with its margin, the length of the window, and the minimum time
-- between two messages. KEYS: for each charge, those of its account. Times in microseconds.
-- Sets "accounts", and "charges" with "account" and "window" of each.
local accounts, charges = {}, {}
local recipient = ARGV[3]
do
  local place = 1
  for offset = 1, #ARGV[2], PART do
    local amount, limit, most, length, min_delta = struct.unpack('<ddddd', ARGV[2], offset)
    local key, window = KEYS[place]
    local account = accounts[key]
    if amount == -2 then
      account = account or open_distinct(place, recipient)
      window, place = distinct_window(account, length, recipient), place + 2
    else
      account = account or open(place)
      window, place = window_of(account, length), place + 4
      account.amount, account.min_delta = amount, math.max(account.min_delta, min_delta)
    end
    if not accounts[key] then
      accounts[key], accounts[#accounts + 1] = account, account
    end
    charges[#charges + 1] = {
      account = account, window = window, limit = limit, most = most, min_delta = min_delta,
    }
  end
end
