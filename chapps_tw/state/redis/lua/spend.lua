-- Count a message, or another recipient of it.
-- ARGV: dry, interval, margin_count, margin_ratio, min_delta, instance, recipient, cost
--       [, fill's token, value, ttl], when. Times in microseconds.
-- Returns outcome, limit, used, wait [, token].
local dry, interval, min_delta = ARGV[1] == '1', tonumber(ARGV[2]), tonumber(ARGV[5])
local instance, recipient, cost = ARGV[6], ARGV[7], tonumber(ARGV[8])
local user = redis.call('HMGET', KEYS[1], 'value', 'expires', 'token', 'kept', 'used', 'last', 'stays')

local limit = recall(KEYS[1], user, 8, dry)
if not limit then
  return {0, 0, 0, 0, user[3] or ''}
elseif limit == -2 then
  return {5, 0, 0, 0}
elseif limit == -1 then
  return {6, 0, 0, 0}
end

local last = tonumber(user[6])
if last and last > now then
  last = now
  if not dry then
    count_from_now()
  end
end
local from = now - interval
local used, passed = slide(tonumber(user[5]) or 0, from, dry)
local began, own, recipients = digits(now), 0, ''
local message = redis.call('HGET', KEYS[3], instance)
if message and time_of(message) > from then
  began, own, recipients = string.match(message, '^(%d+) (%d+)(.*)$')
  own = tonumber(own)
end

local target
if recipient == '' then
  target = cost > 0 and cost or math.max(own, 1)
else
  target = own + 1
  recipient = ' ' .. recipient
  if string.find(recipients, recipient, 1, true) then
    target = own
  end
end
if target == own then
  return {2, limit, used, 0}
end

if own == 0 and last and now - last < min_delta then
  return {4, limit, used, last + min_delta - now}
end

local sum = used - own + target
local most = limit + tonumber(ARGV[3]) + math.floor(limit * tonumber(ARGV[4]))
if target > own and not ((own > 0 or used < limit) and sum <= most) then
  local entry = began .. ' ' .. instance
  local is_refunded = own > 0 and recipient == ''
  if is_refunded then
    used = used - own
    if not dry then
      redis.call('HSET', KEYS[1], 'used', digits(used))
      redis.call('HDEL', KEYS[3], instance)
      redis.call('LREM', KEYS[2], -1, entry)
    end
  end
  local oldest = redis.call('LINDEX', KEYS[2], passed)
  if is_refunded and oldest == entry then
    oldest = redis.call('LINDEX', KEYS[2], passed + 1)
  end
  return {3, limit, used, oldest and math.min(time_of(oldest), now) + interval - now or 0}
end

if not dry then
  redis.call('HSET', KEYS[3], instance, began .. ' ' .. digits(target) .. recipients .. recipient)
  if own > 0 then
    redis.call('HSET', KEYS[1], 'used', digits(sum))
  else
    local length = redis.call('RPUSH', KEYS[2], began .. ' ' .. instance)
    local least = now + math.max(interval, min_delta)
    if length == 1 or not user[7] or tonumber(user[7]) < least then
      -- An eighth longer than necessary, so that this is rarely done.
      local stays = least + interval / 8
      redis.call('HSET', KEYS[1], 'used', digits(sum), 'last', began, 'stays', digits(stays))
      for _, key in ipairs(KEYS) do
        outlast(key, stays - now)
      end
    else
      redis.call('HSET', KEYS[1], 'used', digits(sum), 'last', began)
    end
  end
end
return {1, limit, sum, 0}
