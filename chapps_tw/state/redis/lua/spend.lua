-- Count a message, or another recipient of it, in all its accounts or in none.
-- ARGV: dry, charges, recipient, instance, whole, reserve (microseconds).
-- Returns outcome, index of the decisive charge (from 0, or -1), wait, and what the window of each charge contains.
local whole, reserve = ARGV[5] == '1', tonumber(ARGV[6])
local reply = {2, -1, 0}

-- What the message has cost each account, and what it is to cost.
for _, account in ipairs(accounts) do
  if not account.distinct then
    if account.changed and not dry then
      rarely().tidy(account)
    end
    if account.is_reread then
      account.message = not account.gone[instance] and redis.call('HGET', account.messages, instance)
    end
    local own, amount = 0, account.amount
    if account.message then
      local began, cost, recipients = string.match(account.message, '^(%d+) (%d+)(.*)$')
      account.time = tonumber(began)
      if account.time > now - account.longest and account.time > account.left then
        own, account.began, account.recipients = tonumber(cost), began, recipients
      end
    end
    account.own, account.target = own, amount
    if amount == -1 then
      local added = ' ' .. recipient
      if own > 0 and string.find(account.recipients, added, 1, true) then
        account.target = own
      else
        account.target, account.added = own + 1, added
      end
    elseif amount == 0 then
      account.target = own > 0 and own or 1
    end
  end
end

-- Whether each charge fits.
local is_refused = false
for _, charge in ipairs(charges) do
  local account, window = charge.account, charge.window
  local own, extra = account.own, window.extra
  if account.distinct then
    charge.outcome = (extra == 0 or window.sum < charge.limit) and 1 or 3
  else
    extra = (own == 0 or account.time > now - window.length) and account.target - own or 0
    if own == 0 and account.last > 0 and now - account.last < charge.min_delta then
      charge.outcome = 4
    elseif extra > 0 and not ((own > 0 or window.sum < charge.limit) and window.sum + extra <= charge.most) then
      charge.outcome = 3
    else
      charge.outcome = 1
    end
  end
  if charge.outcome ~= 1 then
    is_refused = true
  elseif extra ~= 0 then
    reply[1] = 1
  end
end

if is_refused then
  for _, account in ipairs(accounts) do
    if whole and not account.distinct and account.own > 0 then
      rarely().give_back(account, instance, account.time, account.own)
      rarely().refresh(account)
    end
  end
  local longest = -1
  for i, charge in ipairs(charges) do
    local account, window, wait = charge.account, charge.window, -1
    if charge.outcome == 4 then
      wait = account.last + charge.min_delta - now
    elseif charge.outcome == 3 then
      if charge.limit == 0 or (not account.distinct and account.amount > charge.most) then
        -- No wait helps; that comes first.
        wait = NEVER
      else
        local oldest = account.distinct and distinct.oldest_of(account, window) or window.oldest
        wait = math.min(oldest, now) + window.length - now
      end
    end
    if wait > longest then
      longest = wait
      reply[1], reply[2], reply[3] = charge.outcome, i - 1, wait < NEVER and wait or 0
    end
  end
else
  for _, account in ipairs(accounts) do
    local own, target, began = account.own, account.target, account.began
    if account.distinct then
      if recipient ~= '' and not dry then
        distinct.count(account)
      end
    elseif target ~= own then
      reply[1], account.changed = 1, true
      for _, window in ipairs(account.windows) do
        if own == 0 then
          window.sum = window.sum + target
          if window.oldest > now then
            window.oldest = now
          end
        elseif account.time > now - window.length then
          window.sum = window.sum + target - own
        end
      end
      if not dry then
        if own == 0 then
          began, account.last = digits(now), now
          -- A message that was counted before has left the windows: its entry is void from now on.
          account.void = account.void + (account.message and 1 or 0)
          account.is_new = account.is_new or account.size == account.void
          account.size = account.size + 1
          account.is_lost = redis.call('RPUSH', account.log, began .. ' ' .. instance) ~= account.size
        end
        account.written = began .. ' ' .. digits(target) .. (account.recipients or '') .. (account.added or '')
      end
    end
    if account.held and not dry then
      if own == 0 and not whole and reserve > 0 then
        redis.call('ZADD', account.reserved, digits(now + reserve), instance)
        outlast(account.reserved, account.stays - now)
        account.held = math.min(account.held, now + reserve)
      elseif account.held < NEVER and (whole or reserve == 0) then
        redis.call('ZREM', account.reserved, instance)
      end
    end
  end
end

for i, charge in ipairs(charges) do
  local window = charge.window
  reply[i + 3] = window.sum + (charge.account.distinct and not is_refused and window.extra or 0)
end

for _, account in ipairs(dry and {} or accounts) do
  if account.changed then
    if account.void > 100 and account.void > account.size / 2 then
      rarely().compact(account)
    end
    local longest = account.longest > account.min_delta and account.longest or account.min_delta
    if account.stays < now + longest then
      -- An eighth longer than necessary, so that this is rarely done.
      account.stays, account.is_new = now + longest * 1.125, true
    end
    local size, void, last, stays, held = account.size, account.void, account.last, account.stays, account.held
    local parts = {struct.pack('<dddddd', size, void, now, last, stays, held)}
    for i, window in ipairs(account.windows) do
      local length, sum, first = window.length, window.sum, window.first
      parts[i + 1] = struct.pack('<ddddd', length, sum, first, window.oldest, window.asked)
    end
    -- If another program has changed the list, all sums are made anew the next time.
    local packed = account.is_lost and '' or table.concat(parts)
    if account.written then
      redis.call('HSET', account.messages, '', packed, instance, account.written)
    else
      redis.call('HSET', account.messages, '', packed)
    end
    if account.is_new then
      outlast(account.log, account.stays - now)
      outlast(account.messages, account.stays - now)
      outlast(account.reserved, account.stays - now)
    end
  end
end
return reply
