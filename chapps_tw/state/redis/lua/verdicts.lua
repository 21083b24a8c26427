-- Cached verdicts, each as it was brought: "1" or "0", and the milliseconds that it is kept. One that stays for
-- longer is of a clock that was ahead: "?" goes before it. ARGV: when.
local found = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  local ttl = found[i] and string.match(found[i], '^[01] (%d+)$')
  if ttl and redis.call('PTTL', key) > tonumber(ttl) then
    found[i] = '?' .. found[i]
  end
end
return found
