-- Have a tuple as if it had been deferred at a time. KEYS: the tuple, "first last". ARGV: the time, deferral, retry_window,
-- pass_ttl, in microseconds, when. Returns 1 if that changes it, else 0.
local at, deferral = math.min(tonumber(ARGV[1]), now), tonumber(ARGV[2])
local function lifetime(first, last)
  return tonumber(ARGV[last - first >= deferral and 4 or 3])
end

local first, last = at, at
local known = redis.call('GET', KEYS[1])
if known then
  local began, seen = string.match(known, '^(%d+) (%d+)$')
  began, seen = tonumber(began), tonumber(seen)
  if math.abs(now - seen) <= lifetime(began, seen) then
    first, last = math.min(began, at), math.max(seen, at)
    if first == began and last == seen then
      return 0
    end
  end
end
local left = last + lifetime(first, last) - now
if left <= 0 then
  return 0
end
redis.call('SET', KEYS[1], digits(first) .. ' ' .. digits(last), 'PX', digits(left / 1000 + 60000))
return 1
