-- A cached value of the book is a text, its TTL in milliseconds, and when it was cached: 16 digits of microseconds, all
-- separated by spaces. Of a long text there is the digest instead, "DIGEST@TTL TIME", and the text is in a key of its
-- own, so that comparing the value is quick. Older versions stored "1" or "0", and the TTL. All else is a tombstone.

-- Return whether a value was cached before the clock was set back.
local function is_from_the_future(key, value)
  local kept = tonumber(string.sub(value, -16))
  if kept then
    return kept > now
  end
  local ttl = string.match(value, '^[01] (%d+)$')
  return ttl and redis.call('PTTL', key) > tonumber(ttl)
end

-- Add the text to a value that has its digest.
local function with_text(key, value)
  local digest = value and string.match(value, '^(%x+)@%d+ %d+$')
  return digest and {value, redis.call('GET', key .. ':' .. digest)} or value
end
