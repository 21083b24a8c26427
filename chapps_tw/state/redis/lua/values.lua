-- Return cached values as they are stored; a digest with its text; one from the future with none. ARGV: when.
local found = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  if found[i] and is_from_the_future(key, found[i]) then
    found[i] = {found[i], false}
  else
    found[i] = with_text(key, found[i])
  end
end
return found
