-- Cache verdicts where what is there still is what their token says, or is gone by itself: what was
-- dropped leaves a mark for longer than anybody waits for the book.
-- ARGV: milliseconds to keep them, then a token and a value for each key, when.
for i, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  if not value or value == ARGV[2 * i] then
    redis.call('SET', key, ARGV[2 * i + 1] .. ' ' .. ARGV[1], 'PX', ARGV[1])
  end
end
return 1
