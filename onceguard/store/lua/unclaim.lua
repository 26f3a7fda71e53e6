-- Free the claim of a call whose publish failed.
--
-- KEYS[1]  the lock
-- KEYS[2]  index of the partition
-- ARGV[1]  message id
-- ARGV[2]  the key, as the index lists it
--
-- Returns 1 if freed, 0 if the key is held by anyone else, or as a lease.

local mine = 'claim ' .. ARGV[1] .. ' '
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, #mine) ~= mine then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
return 1
