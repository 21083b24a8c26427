-- Count messages of the past in an account, at their own time. KEYS: those of the account, see entries.lua.
-- ARGV: "0", one charge, "", "", then time (microseconds), cost and instance of each message in order of time, when.
-- Returns how many were not counted before.
local account, window = accounts[1], charges[1].window
local added, names = {}, {}
for i = 5, #ARGV - 1, 3 do
  local time, name = math.min(tonumber(ARGV[i]), now), ARGV[i + 2]
  if time > now - window.length and not names[name] and not redis.call('HGET', account.messages, name) then
    names[name] = true
    added[#added + 1] = {time = time, name = name, entry = digits(time) .. ' ' .. name, cost = ARGV[i + 1]}
  end
end
if #added == 0 then
  return 0
end

-- The entries are in order of time: those that are later go behind the new ones.
local first, count = added[1].time, #added
account.last = math.max(account.last, added[count].time)
local entry = redis.call('LINDEX', account.log, -1)
while entry and tonumber(string.match(entry, '^%d+')) > first do
  added[#added + 1] = {time = tonumber(string.match(entry, '^%d+')), entry = redis.call('RPOP', account.log)}
  entry = redis.call('LINDEX', account.log, -1)
end
table.sort(added, function(one, other) return one.time < other.time end)
for _, each in ipairs(added) do
  redis.call('RPUSH', account.log, each.entry)
  if each.name then
    redis.call('HSET', account.messages, each.name, digits(each.time) .. ' ' .. each.cost)
  end
end
account.size = account.size + count

local parts = {''}
for _, each in ipairs(account.windows) do
  each.first = nil
end
for i, each in ipairs(account.windows) do
  rarely().measure(account, each, 0)
  parts[i + 1] = struct.pack('<ddddd', each.length, each.sum, each.first, each.oldest, each.asked)
end
local longest = math.max(account.longest, account.min_delta)
account.stays = math.max(account.stays, now + longest * 1.125)
parts[1] = struct.pack('<dddddd', account.size, account.void, now, account.last, account.stays, account.held)
redis.call('HSET', account.messages, '', table.concat(parts))
for _, key in ipairs({account.log, account.messages, account.reserved}) do
  outlast(key, account.stays - now)
end
return count
