-- Read the last ticks of schedule entries, all in one partition.
--
-- KEYS  states of the entries
-- ARGV  for each, how many milliseconds to remember that it was seen for the first
--       time, now, if it has no state; 0 not to
--
-- Returns {server time in unix milliseconds, state or '' of each}.

local time = redis.call('TIME')
local found = {time[1] * 1000 + math.floor(time[2] / 1000)}
local now = string.format('%.0f', found[1])
for place, key in ipairs(KEYS) do
  local state = redis.call('GET', key) or ''
  if state == '' and ARGV[place] ~= '0' then
    redis.call('SET', key, now .. ' ' .. now .. ' 0 -', 'PX', ARGV[place])
  end
  found[place + 1] = string.match(state, '^%d+ %d+ %d+ %S+') or ''
end
return found
