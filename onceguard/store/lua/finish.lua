-- End a run: free what its message holds and record it as completed.
--
-- KEYS[1]  lock of the key, where a claim stands
-- KEYS[2]  where the lease stands: KEYS[1], or the run of this task alone
-- KEYS[3]  record of the message
-- KEYS[4]  index of the partition
-- KEYS[5]  record of the retry that this run published, else KEYS[3]
-- KEYS[6]  claim of the tick that waits for a run's end, if this is one, else KEYS[1]
-- ARGV[1]  message id
-- ARGV[2]  delivery nonce
-- ARGV[3]  life of the message's record, in milliseconds
-- ARGV[4]  the key, as the index lists its claim
-- ARGV[5]  the name of the lease, as the index lists it
-- ARGV[6]  message id of the retry that this run published, else ''
-- ARGV[7]  the task id of both
-- ARGV[8]  longest life of the retry's claim, in milliseconds
-- ARGV[9]  1 if the message was skipped, not run
--
-- Returns 1 if the run still had its lease, 0 if that had ended or changed
-- hands: completion is recorded in both cases. The first write is a DEL, which
-- passes at the server's memory limit.

local owner = 'lease ' .. ARGV[1] .. ' ' .. ARGV[2] .. ' '
local own_claim = 'claim ' .. ARGV[1] .. ' '
local note = redis.call('GET', KEYS[3]) or 'open 0 0 -'
local starts, nonce = string.match(note, '^%S+ (%d+) %d+ (%S+)')
if ARGV[9] == '1' and starts ~= '0' and nonce ~= ARGV[2] then
  return 0 -- another delivery of it was started meanwhile: that one settles it
end
redis.call('DEL', KEYS[3])

local had = 0
local lease = redis.call('GET', KEYS[2])
if lease and string.sub(lease, 1, #owner) == owner then
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[4], ARGV[5])
  had = 1
end
local claim = redis.call('GET', KEYS[1])
if claim and string.sub(claim, 1, #own_claim) == own_claim then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[4], ARGV[4])
  claim = false
end
local waiting = KEYS[6] ~= KEYS[1] and redis.call('GET', KEYS[6])
if waiting and string.sub(waiting, 1, #own_claim) == own_claim then
  redis.call('DEL', KEYS[6])
end

redis.call('SET', KEYS[3], 'done' .. string.match(note, '^%S+(.*)$'), 'PX', ARGV[3])

-- A retry that has started, or is over, ends no claim any more: none is made. That of
-- a run which a newer tick superseded (and which was told so by an exception) is not
-- to run either.
local next_note = ARGV[6] ~= '' and redis.call('GET', KEYS[5]) or 'open 0 0 - 0'
local unstarted = ARGV[6] ~= '' and string.sub(next_note, 1, 7) == 'open 0 '
if unstarted and string.find(note, ' superseded', 1, true) then
  local marked = string.find(next_note, ' superseded', 1, true) and '' or ' superseded'
  redis.call('SET', KEYS[5], next_note .. marked, 'PX', ARGV[3])
elseif unstarted and not claim then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('SET', KEYS[1],
    'claim ' .. ARGV[6] .. ' ' .. now .. ' ' .. ARGV[7], 'PX', ARGV[8])
  redis.call('ZADD', KEYS[4], now + ARGV[8], ARGV[4])
  if redis.call('PTTL', KEYS[4]) < tonumber(ARGV[8]) then
    redis.call('PEXPIRE', KEYS[4], ARGV[8] + 86400000)
  end
end
return had
