-- Count a message, or another recipient of it, in all its accounts or in none.
-- ARGV: dry, charges, recipient, instance, whole, reserve (microseconds), ... [assumptions], when.
-- Returns outcome, index of the decisive charge (from 0, or -1), wait, and what the window of each charge contains.
local instance, whole, reserve = ARGV[4], ARGV[5] == '1', tonumber(ARGV[6])

-- Find what the message has cost an account, and what it is to cost.
local function find(account)
  local message = account.size > 0 and not account.gone[instance] and redis.call('HGET', account.messages, instance)
  account.own, account.recipients = 0, ''
  if message then
    local began, own, recipients = string.match(message, '^(%d+) (%d+)(.*)$')
    account.time, account.was_counted = tonumber(began), true
    if account.time > now - account.longest then
      account.began, account.own, account.recipients = began, tonumber(own), recipients
    end
  end
  local own, amount = account.own, account.amount
  if amount == -1 then
    local added = ' ' .. recipient
    if string.find(account.recipients, added, 1, true) then
      account.target = own
    else
      account.target, account.added = own + 1, added
    end
  else
    account.target = amount > 0 and amount or math.max(own, 1)
  end
end

-- Return the outcome of a charge: 1, or why it does not fit.
local function judge(charge)
  local account, window = charge.account, charge.window
  local own, extra = account.own, window.extra
  if not account.distinct then
    if own == 0 and account.last > 0 and now - account.last < charge.min_delta then
      return 4
    end
    extra = (own == 0 or account.time > now - window.length) and account.target - own or 0
    window.extra = extra
  end
  local begun = window.sum < charge.limit or (not account.distinct and own > 0)
  return (extra <= 0 or (begun and window.sum + extra <= charge.most)) and 1 or 3
end

-- Return how long a charge that does not fit has to wait; 0 if that does not help.
local function wait_of(charge, outcome)
  local account, window = charge.account, charge.window
  if outcome == 4 then
    return account.last + charge.min_delta - now
  elseif charge.limit == 0 or (not account.distinct and account.amount > charge.most) then
    return 0
  end
  local oldest = account.distinct and oldest_distinct(account, window) or math.min(window.oldest, now)
  return oldest + window.length - now
end

local function refuse(outcomes)
  if whole then
    for _, account in ipairs(accounts) do
      if not account.distinct and account.own > 0 then
        give_back(account, instance, account.time, account.own)
        refresh(account)
      end
    end
  end
  local decisive, longest = 0, -1
  for i, charge in ipairs(charges) do
    if outcomes[i] ~= 1 then
      local wait = wait_of(charge, outcomes[i])
      -- One that no wait helps comes first.
      local order = wait > 0 and wait or NEVER
      if order > longest then
        decisive, longest = i, order
      end
    end
  end
  return {outcomes[decisive], decisive - 1, longest < NEVER and longest or 0}
end

-- Count the message in its account, or change what it has cost.
local function count(account)
  local own, target, began = account.own, account.target, account.began
  for _, window in ipairs(account.windows) do
    if own == 0 or account.time > now - window.length then
      window.sum = window.sum + target - own
      window.oldest = math.min(window.oldest, own == 0 and now or NEVER)
    end
  end
  if own == 0 then
    began, account.last = digits(now), now
    account.void = account.void + (account.was_counted and 1 or 0)
    account.is_new = account.size == account.void
    account.size = account.size + 1
    if not dry and redis.call('RPUSH', account.log, began .. ' ' .. instance) ~= account.size then
      account.is_lost = true
    end
  end
  if not dry then
    local message = began .. ' ' .. digits(target) .. account.recipients .. (account.added or '')
    redis.call('HSET', account.messages, instance, message)
  end
  account.changed = true
end

-- Reserve the message, or count it for good.
local function settle(account)
  if account.own == 0 and not whole and reserve > 0 then
    redis.call('ZADD', account.reserved, digits(now + reserve), instance)
    outlast(account.reserved, account.stays - now)
    account.held = math.min(account.held, now + reserve)
    redis.call('HSET', account.key, 'held', digits(account.held))
  elseif account.held < NEVER and (whole or reserve == 0) then
    redis.call('ZREM', account.reserved, instance)
  end
end

local outcome, outcomes = 1, {}
for _, account in ipairs(accounts) do
  if not account.distinct then
    if account.changed and not dry then
      tidy(account)
    end
    find(account)
  end
end
for i, charge in ipairs(charges) do
  outcomes[i] = judge(charge)
  outcome = math.max(outcome, outcomes[i])
end
local reply
if outcome > 1 then
  reply = refuse(outcomes)
else
  reply = {2, -1, 0}
  for i, charge in ipairs(charges) do
    if charge.window.extra ~= 0 then
      reply[1] = 1
    end
  end
  for _, account in ipairs(accounts) do
    if account.distinct then
      if recipient ~= '' and not dry then
        count_distinct(account, recipient)
      end
    else
      if account.target ~= account.own then
        reply[1] = 1
        count(account)
      end
      if not dry then
        settle(account)
      end
    end
  end
end
for i, charge in ipairs(charges) do
  local window = charge.window
  reply[i + 3] = window.sum + (charge.account.distinct and outcome == 1 and window.extra or 0)
end
for _, account in ipairs(dry and {} or accounts) do
  if not account.distinct and account.changed then
    save(account)
  end
end
return reply
