-- Goes before every script: gives it "now" (microseconds), and ends what comes too late.
-- The last of ARGV is the time after which the one who asked does not wait any more, or "@" and
-- the time to take for now.
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

-- Lua's own conversion keeps 14 digits.
local function digits(number)
  return string.format('%.0f', number)
end

-- Sees to it that a key stays for some microseconds, and a minute to spare.
local function outlast(key, microseconds)
  local least = microseconds / 1000
  if redis.call('PTTL', key) < least then
    redis.call('PEXPIRE', key, digits(least + 60000))
  end
end
