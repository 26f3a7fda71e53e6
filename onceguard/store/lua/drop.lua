-- Settle a message that will not run: revoked, expired, superseded or too late.
--
-- KEYS[1]  lock of the key, where a claim stands
-- KEYS[2]  record of the message
-- KEYS[3]  index of the partition
-- KEYS[4]  claim of the tick that waits for a run's end, if this is one, else KEYS[1]
-- ARGV[1]  message id
-- ARGV[2]  life of the message's record, in milliseconds
-- ARGV[3]  the key, as the index lists its claim
--
-- Returns 1 if the message still had its claim, else 0.

local mine = 'claim ' .. ARGV[1] .. ' '
local held = redis.call('GET', KEYS[1])
local had = 0
if held and string.sub(held, 1, #mine) == mine then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[3], ARGV[3])
  had = 1
end
local waiting = redis.call('GET', KEYS[4])
if waiting and string.sub(waiting, 1, #mine) == mine then
  redis.call('DEL', KEYS[4])
  had = 1
end
local note = redis.call('GET', KEYS[2]) or 'open 0 0 -'
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[2], 'done' .. string.match(note, '^%S+(.*)$'), 'PX', ARGV[2])
return had
