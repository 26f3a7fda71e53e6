-- Claim a free key for a call that is about to be published.
--
-- KEYS[1]  the lock
-- KEYS[2]  index of the partition
-- ARGV[1]  message id
-- ARGV[2]  its task id
-- ARGV[3]  longest life of the claim, in milliseconds
-- ARGV[4]  the key, as the index lists it
--
-- Returns 1 if the message has the claim (again, where the first reply was
-- lost), else the holder's record and its time left in milliseconds.

local held = redis.call('GET', KEYS[1])
local mine = 'claim ' .. ARGV[1] .. ' '
if held then
  if string.sub(held, 1, #mine) == mine then
    return 1
  end
  return {held, redis.call('PTTL', KEYS[1])}
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], mine .. now .. ' ' .. ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[4])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[3] + 86400000)
end
return 1
