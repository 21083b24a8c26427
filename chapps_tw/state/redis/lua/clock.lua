-- Prelude of every script: sets "now" (microseconds), and rejects calls that arrive after their deadline.
-- The last of ARGV ("when" below) is the deadline, or "@" and the time to use as now.
local now
do
  local when = ARGV[#ARGV]
  if string.byte(when) == 64 then
    now = tonumber(string.sub(when, 2))
  else
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
    if now > tonumber(when) then
      return redis.error_reply('LATE nobody waits for the answer any more')
    end
  end
end

-- tostring() has only 14 digits.
local function digits(number)
  return string.format('%d', number)
end

-- Ensure that a key does not expire within some microseconds; sets a minute more.
local function outlast(key, microseconds)
  local least = microseconds / 1000
  if redis.call('PTTL', key) < least then
    redis.call('PEXPIRE', key, digits(least + 60000))
  end
end
