-- An account of distinct recipients. KEYS: a hash; a sorted set of recipients by the time of the last message to each.
-- The hash: "last" (time of the last message), "stays" (end of the TTL), "longest" (length of the longest window in use)
-- and "asked" (when that was last asked for). Made when it is needed.
local distinct
local function distinct_of()
  local recipient = ARGV[3]

  local function open(place)
    local found = redis.call('HMGET', KEYS[place], 'last', 'stays', 'longest', 'asked')
    local account = {
      distinct = true, key = KEYS[place], seen = KEYS[place + 1], last = tonumber(found[1]) or 0,
      stays = tonumber(found[2]) or 0, longest = tonumber(found[3]) or 0, asked = tonumber(found[4]) or 0,
    }
    if account.last > now then
      -- The clock was set back: what has not left the windows by then counts from now.
      if not dry then
        redis.call('ZREMRANGEBYSCORE', account.seen, '-inf', digits(account.last - account.longest))
        for _, each in ipairs(redis.call('ZRANGEBYSCORE', account.seen, '(' .. digits(now), '+inf')) do
          redis.call('ZADD', account.seen, digits(now), each)
        end
      end
      account.last = now
    end
    account.time = recipient ~= '' and tonumber(redis.call('ZSCORE', account.seen, recipient))
    return account
  end

  -- Return a window of it: its sum, and what the message costs it.
  local function window_of(account, length)
    if length >= account.longest or math.abs(now - account.asked) > account.longest then
      account.longest, account.asked = length, now
    end
    local contained = account.time and account.time > now - length
    return {
      length = length, extra = (contained or recipient == '') and 0 or 1,
      sum = redis.call('ZCOUNT', account.seen, '(' .. digits(now - length), '+inf'),
    }
  end

  -- Return when the oldest recipient in a window was counted.
  local function oldest_of(account, window)
    local from = '(' .. digits(now - window.length)
    local found = redis.call('ZRANGEBYSCORE', account.seen, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    return tonumber(found[2]) or now
  end

  -- Count a message to the recipient.
  local function count(account)
    local from = now - account.longest
    redis.call('ZADD', account.seen, digits(now), recipient)
    local longest, asked = digits(account.longest), digits(account.asked)
    redis.call('HSET', account.key, 'last', digits(now), 'longest', longest, 'asked', asked)
    local size = redis.call('ZCARD', account.seen)
    if size > 100 and size > 2 * redis.call('ZCOUNT', account.seen, '(' .. digits(from), '+inf') then
      redis.call('ZREMRANGEBYSCORE', account.seen, '-inf', digits(from))
    end
    if size == 1 or account.stays < now + account.longest then
      account.stays = now + account.longest * 1.125
      redis.call('HSET', account.key, 'stays', digits(account.stays))
      outlast(account.key, account.stays - now)
      outlast(account.seen, account.stays - now)
    end
  end

  return {open = open, window_of = window_of, oldest_of = oldest_of, count = count}
end
