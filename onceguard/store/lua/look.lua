-- Read strings; where several masters vote, promise to heed no earlier taker.
--
-- KEYS     strings; none at all to read the time only
-- KEYS[last]  with ARGV: where the promise stands
-- ARGV[1]  id of this look, if it is to be followed by a script that takes a key
-- ARGV[2]  life of the promise, in milliseconds
--
-- Returns {seconds and microseconds of the server's clock, then for each string its
-- value, '' if there is none, and its time left in milliseconds}. A script that takes the
-- key after another look than its own is refused (taken.lua): whatever others take
-- afterwards, they take knowing what this look has seen.

local strings = #KEYS
if ARGV[1] then
  redis.call('SET', KEYS[strings], ARGV[1], 'PX', ARGV[2])
  strings = strings - 1
end
local time = redis.call('TIME')
local found = {time[1], time[2]}
for place = 1, strings do
  found[#found + 1] = redis.call('GET', KEYS[place]) or ''
  found[#found + 1] = redis.call('PTTL', KEYS[place])
end
return found
