-- Take back a tick whose message could not be sent.
--
-- KEYS[1]  state of the schedule entry
-- KEYS[2]  where the tick's claim stands: the lock, or beside it if it waits
-- KEYS[3]  index of the key's partition
-- ARGV[1]  the entry's state as the tick left it
-- ARGV[2]  its state before, or ''
-- ARGV[3]  life of the state, in milliseconds
-- ARGV[4]  message id
-- ARGV[5]  the key, as the index lists it; '' if the tick waits
--
-- Returns 1 if the tick was still the entry's last.

local mine = 'claim ' .. ARGV[4] .. ' '
local held = redis.call('GET', KEYS[2])
if held and string.sub(held, 1, #mine) == mine then
  redis.call('DEL', KEYS[2])
  if ARGV[5] ~= '' then
    redis.call('ZREM', KEYS[3], ARGV[5])
  end
end
local state = redis.call('GET', KEYS[1]) or ''
if string.sub(state, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then
  return 0
end
redis.call('DEL', KEYS[1])
if ARGV[2] ~= '' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
