-- Let a lease end soon: its message is settled, its process about to be killed.
--
-- KEYS[1]  where the lease stands
-- KEYS[2]  record of the message
-- ARGV[1]  message id
-- ARGV[2]  delivery nonce
-- ARGV[3]  longest life that the lease keeps, in milliseconds
-- ARGV[4]  life of the message's record, in milliseconds
--
-- Returns 1 if the lease was still held, else 0. The message is recorded as
-- completed in both cases.

local owner = 'lease ' .. ARGV[1] .. ' ' .. ARGV[2] .. ' '
local lease = redis.call('GET', KEYS[1])
local had = 0
if lease and string.sub(lease, 1, #owner) == owner then
  if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
  end
  had = 1
end
local note = redis.call('GET', KEYS[2]) or 'open 0 0 -'
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[2], 'done' .. string.match(note, '^%S+(.*)$'), 'PX', ARGV[4])
return had
