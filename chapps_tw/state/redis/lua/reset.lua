-- Delete accounts. Returns what each window contained. ARGV: "1", charges, "", "", when.
local were = {}
for i, charge in ipairs(charges) do
  were[i] = charge.window.sum
end
redis.call('DEL', unpack(KEYS))
return were
