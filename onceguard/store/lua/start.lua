-- Ask to start the run of a delivered message.
--
-- KEYS[1]  lock of the key, where a claim stands
-- KEYS[2]  where the lease stands: KEYS[1], or the run of this task alone
-- KEYS[3]  record of the message
-- KEYS[4]  record of the message that published this retry, else KEYS[3]
-- KEYS[5]  index of the partition
-- KEYS[6]  fencing counter of the partition
-- KEYS[7]  token of the newest lease that followed one that ended by itself
-- KEYS[8]  claim of the tick that waits for a run's end, if this is one, else KEYS[1]
-- ARGV[1]  message id
-- ARGV[2]  delivery nonce
-- ARGV[3]  where it runs
-- ARGV[4]  task id
-- ARGV[5]  life of the lease, in milliseconds
-- ARGV[6]  life of the message's record, in milliseconds
-- ARGV[7]  starts after which the message is given up
-- ARGV[8]  the key, as the index lists its claim
-- ARGV[9]  the name of the lease, as the index lists it
-- ARGV[10] unix milliseconds after which it is too late to start; '' for never
--
-- Returns {answer, record of the lease or of its holder, time left in
-- milliseconds, generation of the message, starts of the message so far}.
-- The order of the questions is part of the protocol.

local mid, nonce, task_id = ARGV[1], ARGV[2], ARGV[4]
local owner = 'lease ' .. mid .. ' ' .. nonce .. ' '

local function parse(record)
  return string.match(record, '^(%S+) (%S+) %S+ %S+ %S+ %S+ %S+ (.*)$')
end

local state, starts, generation = 'open', 0, 0
local note = redis.call('GET', KEYS[3])
if note then
  local s, a, g = string.match(note, '^(%S+) (%d+) (%d+)')
  state, starts, generation = s, tonumber(a), tonumber(g)
end

local lease = redis.call('GET', KEYS[2])
local claim = lease
if KEYS[1] ~= KEYS[2] then
  claim = redis.call('GET', KEYS[1])
end

if lease and string.sub(lease, 1, #owner) == owner then
  return {'acquired', lease, redis.call('PTTL', KEYS[2]), generation, starts}
end
if state == 'done' then
  return {'already_completed', '', 0, generation, starts}
end

local kind, holder, holder_task
if lease then
  kind, holder, holder_task = parse(lease)
  if kind == 'lease' and (holder == mid or holder_task == task_id) then
    return {'duplicate_delivery', lease, redis.call('PTTL', KEYS[2]), generation, starts}
  end
end
if starts >= tonumber(ARGV[7]) then
  return {'rejected', lease or '', 0, generation, starts}
end
if note and string.find(note, ' superseded', 1, true) then
  return {'replaced', '', 0, generation, starts}
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if starts == 0 and ARGV[10] ~= '' and now > tonumber(ARGV[10]) * 1000 then
  return {'missed', lease or '', 0, generation, starts}
end
if kind == 'lease' then
  return {'conflict', lease, redis.call('PTTL', KEYS[2]), generation, starts}
end

local token = math.max(tonumber(redis.call('GET', KEYS[6]) or '0') + 1, now)
local text = string.format('%.0f', token)
local record = owner .. (starts + 1) .. ' ' .. text .. ' '
  .. string.format('%.0f', now) .. ' ' .. ARGV[3] .. ' ' .. task_id

redis.call('SET', KEYS[6], text)
redis.call('SET', KEYS[2], record, 'PX', ARGV[5])
redis.call('SET', KEYS[3],
  'open ' .. (starts + 1) .. ' ' .. generation .. ' ' .. nonce .. ' ' .. text, 'PX', ARGV[6])
if KEYS[4] ~= KEYS[3] then
  local parent = redis.call('GET', KEYS[4]) or 'open 0 0 -'
  redis.call('SET', KEYS[4], 'done' .. string.match(parent, '^%S+(.*)$'), 'PX', ARGV[6])
end

local mine = 'claim ' .. mid .. ' '
if KEYS[1] ~= KEYS[2] and claim and string.sub(claim, 1, #mine) == mine then
  redis.call('DEL', KEYS[1])
end
if claim and (KEYS[1] == KEYS[2] or string.sub(claim, 1, #mine) == mine) then
  redis.call('ZREM', KEYS[5], ARGV[8])
end
if KEYS[8] ~= KEYS[1] then
  local waiting = redis.call('GET', KEYS[8])
  if waiting and string.sub(waiting, 1, #mine) == mine then
    redis.call('DEL', KEYS[8])
  end
end
if redis.call('ZSCORE', KEYS[5], ARGV[9]) then
  redis.call('SET', KEYS[7], text, 'PX', ARGV[6])
end
redis.call('ZADD', KEYS[5], string.format('%.0f', now / 1000 + ARGV[5]), ARGV[9])
if redis.call('PTTL', KEYS[5]) < tonumber(ARGV[5]) then
  redis.call('PEXPIRE', KEYS[5], ARGV[5] + 86400000)
end
return {'acquired', record, tonumber(ARGV[5]), generation, starts + 1}
