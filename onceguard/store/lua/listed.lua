-- Name what is held in a partition, as its index has it.
--
-- KEYS[1]  index of the partition
-- ARGV[1]  how many to leave out, from the one that ends first
-- ARGV[2]  how many to give at most
--
-- Returns the names: the key of a claim; of a lease the key, a space, and "lease" or the
-- task id. Some may be free already, which the index learns later.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1],
  '(' .. string.format('%.0f', now), '+inf', 'LIMIT', ARGV[1], ARGV[2])
