-- End a run: free what its message holds and record it as completed.
--
-- KEYS[1]  lock of the key, where a claim stands
-- KEYS[2]  where the lease stands: KEYS[1], or the run of this message alone
-- KEYS[3]  record of the message
-- KEYS[4]  index of the partition
-- ARGV[1]  message id
-- ARGV[2]  delivery nonce
-- ARGV[3]  life of the message's record, in milliseconds
-- ARGV[4]  the key, as the index lists its claim
-- ARGV[5]  the name of the lease, as the index lists it
-- ARGV[6]  message id of the retry that this run published, else ''
-- ARGV[7]  where the retry was published and its task id
-- ARGV[8]  longest life of the retry's claim, in milliseconds
--
-- Returns 1 if the run still had its lease, 0 if that had ended or changed
-- hands: completion is recorded in both cases. The first write is a DEL, which
-- passes at the server's memory limit.

local owner = 'lease ' .. ARGV[1] .. ' ' .. ARGV[2] .. ' '
local own_claim = 'claim ' .. ARGV[1] .. ' '
local note = redis.call('GET', KEYS[3]) or 'open 0 0 -'
redis.call('DEL', KEYS[3])

local had = 0
local lease = redis.call('GET', KEYS[2])
if lease and string.sub(lease, 1, #owner) == owner then
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[4], 'lease ' .. ARGV[5])
  had = 1
end
local claim = redis.call('GET', KEYS[1])
if claim and string.sub(claim, 1, #own_claim) == own_claim then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[4], 'claim ' .. ARGV[4])
  claim = false
end

redis.call('SET', KEYS[3], 'done' .. string.match(note, '^%S+(.*)$'), 'PX', ARGV[3])
if ARGV[6] ~= '' and not claim then
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  redis.call('SET', KEYS[1], 'claim ' .. ARGV[6] .. ' - 0 0 '
    .. string.format('%.0f', now) .. ' ' .. ARGV[7], 'PX', ARGV[8])
  redis.call('ZADD', KEYS[4],
    string.format('%.0f', now / 1000 + ARGV[8]), 'claim ' .. ARGV[4])
  if redis.call('PTTL', KEYS[4]) < tonumber(ARGV[8]) then
    redis.call('PEXPIRE', KEYS[4], ARGV[8] + 86400000)
  end
end
return had
