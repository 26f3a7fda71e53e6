-- Let the claim of a tick live on, now that its message is sent, and supersede
-- the messages in whose place it was sent.
--
-- KEYS[1]   where the tick's claim stands: the lock, or beside it if it waits
-- KEYS[2]   index of the partition
-- KEYS[3]   record of the message
-- KEYS[4..] records of the messages to supersede
-- ARGV[1]   message id
-- ARGV[2]   its task id
-- ARGV[3]   longest life of the claim, in milliseconds
-- ARGV[4]   the key, as the index lists it; '' if the tick waits
-- ARGV[5]   the claim that the tick's takes the place of, or ''
-- ARGV[6]   life of the superseded messages' records, in milliseconds
-- ARGV[7]   1 to supersede messages that have started, too
--
-- Returns 1 if the message has its claim, 0 if it has started or another call has
-- the key. A claim that ended while the message was being sent is made again.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('GET', KEYS[1])
local mine = 'claim ' .. ARGV[1] .. ' '
local note = redis.call('GET', KEYS[3]) or 'open 0 '
local waiting = string.sub(note, 1, 7) == 'open 0 ' and not string.find(note, ' superseded', 1, true)
local had = 0
if held and string.sub(held, 1, #mine) == mine then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  had = 1
elseif (not held or held == ARGV[5]) and waiting then
  redis.call('SET', KEYS[1],
    mine .. string.format('%.0f', now) .. ' ' .. ARGV[2], 'PX', ARGV[3])
  had = 1
end
if had == 1 and ARGV[4] ~= '' then
  redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[4])
  if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[3] + 86400000)
  end
end
local marked = ARGV[7] == '1' and 'open ' or 'open 0 '
for place = 4, #KEYS do
  local note = redis.call('GET', KEYS[place]) or 'open 0 0 - 0'
  if string.sub(note, 1, #marked) == marked and not string.find(note, ' superseded', 1, true) then
    redis.call('SET', KEYS[place], note .. ' superseded', 'PX', ARGV[6])
  end
end
return had
