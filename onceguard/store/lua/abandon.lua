-- Give up the lease of a dead process, whose message will be delivered again.
--
-- KEYS[1]  lock of the key, where a claim stands
-- KEYS[2]  where the lease stands: KEYS[1], or the run of this task alone
-- KEYS[3]  record of the message
-- KEYS[4]  index of the partition
-- ARGV[1]  message id
-- ARGV[2]  delivery nonce
-- ARGV[3]  life of the claim that the message keeps, in milliseconds; 0 for none
-- ARGV[4]  its task id
-- ARGV[5]  the key, as the index lists its claim
-- ARGV[6]  the name of the lease, as the index lists it
-- ARGV[7]  1 if the run began, 0 if its start is not to be counted
--
-- Returns 1 if given up, 0 if the lease had ended or changed hands. The
-- message's record stays, and nobody takes the lease up again. A message that is settled
-- already (hard time limit) will not come again and keeps no claim.

local owner = 'lease ' .. ARGV[1] .. ' ' .. ARGV[2] .. ' '
local lease = redis.call('GET', KEYS[2])
if not lease or string.sub(lease, 1, #owner) ~= owner then
  return 0
end
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[4], ARGV[6])
local note = redis.call('GET', KEYS[3])
if note and string.sub(note, 1, 4) == 'done' then
  return 1
end
if note then -- a nonce that begins with '-' is of a run that was given up
  local starts, generation = string.match(note, '^open (%d+) (%d+)')
  starts = math.max(0, starts - 1 + ARGV[7])
  redis.call('SET', KEYS[3], 'open ' .. starts .. ' ' .. generation .. ' -' .. ARGV[2] .. ' 0'
    .. (string.match(note, ' superseded$') or ''), 'PX', math.max(1, redis.call('PTTL', KEYS[3])))
end
if ARGV[3] ~= '0' and redis.call('EXISTS', KEYS[1]) == 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('SET', KEYS[1],
    'claim ' .. ARGV[1] .. ' ' .. now .. ' ' .. ARGV[4], 'PX', ARGV[3])
  redis.call('ZADD', KEYS[4], now + ARGV[3], ARGV[5])
  if redis.call('PTTL', KEYS[4]) < tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[4], ARGV[3] + 86400000)
  end
end
return 1
