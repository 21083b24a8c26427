-- Return, for each window, its sum, the time of the last message, and that of the oldest that it contains (0 if none).
-- ARGV: "1", charges, "", "", when.
local found = {}
for _, charge in ipairs(charges) do
  local account, window = charge.account, charge.window
  local oldest = 0
  if window.sum > 0 then
    oldest = math.min(account.distinct and distinct.oldest_of(account, window) or window.oldest, now)
  end
  found[#found + 1], found[#found + 2], found[#found + 3] = window.sum, math.min(account.last, now), oldest
end
return found
