-- Return cached values as they are stored; a digest with its text; one from the future with none. Then the stamp of all
-- values, which is in the last of KEYS, or "": see version.lua. ARGV: when.
local last = #KEYS
local stamp = redis.call('GET', KEYS[last])
if not stamp then
  -- A server without data, or one that has evicted it. If it is full, there is none.
  stamp = digits(now)
  stamp = redis.pcall('SET', KEYS[last], stamp, 'PX', '86400000').ok and stamp or ''
end
KEYS[last] = nil
local found = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  if found[i] and is_from_the_future(key, found[i]) then
    found[i] = {found[i], false}
  else
    found[i] = with_text(key, found[i])
  end
end
found[last] = stamp
return found
