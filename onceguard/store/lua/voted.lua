-- Stands before each other script where several masters vote.
--
-- ARGV[last - 1], ARGV[last]  seconds and microseconds that the masters agreed on
--
-- Their clocks differ, and what they write must not: the time is the agreed one. And
-- they run at different speeds, so lives are longer by the drift that Redlock's
-- validity takes off (redis.io/topics/distlock: 1 % and 2 ms), and what is left of one
-- is told without it.

local agreed_time = {ARGV[#ARGV - 1], ARGV[#ARGV]}
local master = redis
local redis = {}

local function with_drift(life)
  return math.floor(life * 1.01) + 2
end

function redis.call(command, key, ...)
  if command == 'TIME' then
    return agreed_time
  end
  if command == 'PTTL' then
    local left = master.call(command, key)
    return left > 0 and math.max(1, math.ceil((left - 2) / 1.01)) or left
  end
  local words = {...}
  if command == 'PEXPIRE' then
    words[1] = with_drift(words[1])
  elseif words[#words - 1] == 'PX' then
    words[#words] = with_drift(words[#words])
  end
  return master.call(command, key, unpack(words))
end

