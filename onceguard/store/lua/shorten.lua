-- Let a lease end soon: its message is settled, its process about to be killed.
--
-- KEYS[1]  lock of the key, where a claim stands
-- KEYS[2]  where the lease stands: KEYS[1], or the run of this task alone
-- KEYS[3]  record of the message
-- KEYS[4]  index of the partition
-- KEYS[5]  claim of the tick that waits for a run's end, if this is one, else KEYS[1]
-- ARGV[1]  message id
-- ARGV[2]  delivery nonce
-- ARGV[3]  longest life that the lease keeps, in milliseconds
-- ARGV[4]  life of the message's record, in milliseconds
-- ARGV[5]  the key, as the index lists its claim
--
-- Returns 1 if the lease was still held, else 0. The message is recorded as
-- completed and loses its claim in both cases.

local owner = 'lease ' .. ARGV[1] .. ' ' .. ARGV[2] .. ' '
local own_claim = 'claim ' .. ARGV[1] .. ' '
local lease = redis.call('GET', KEYS[2])
local had = 0
if lease and string.sub(lease, 1, #owner) == owner then
  if redis.call('PTTL', KEYS[2]) > tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
  end
  had = 1
end
local claim = redis.call('GET', KEYS[1])
if claim and string.sub(claim, 1, #own_claim) == own_claim then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[4], ARGV[5])
end
local waiting = redis.call('GET', KEYS[5])
if waiting and string.sub(waiting, 1, #own_claim) == own_claim then
  redis.call('DEL', KEYS[5])
end
local note = redis.call('GET', KEYS[3]) or 'open 0 0 -'
redis.call('DEL', KEYS[3])
redis.call('SET', KEYS[3], 'done' .. string.match(note, '^%S+(.*)$'), 'PX', ARGV[4])
return had
