-- Renew the leases of one partition; take those up again that ended while
-- nobody could renew them, where nobody ran in between.
--
-- KEYS[1]    index of the partition
-- KEYS[2]    fencing counter of the partition
-- KEYS[3..]  for each lease: where it stands, its message's record, the token
--            of the newest lease that followed one that ended by itself
-- ARGV       for each lease, seven: message id, delivery nonce, life of the
--            lease and of the message's record in milliseconds, the lease's
--            record as last seen ('' if never), its name in the index, and
--            where it runs with its task id, or '' to take up what was seen only
--
-- Returns for each lease an answer and a record:
--   renewed  the lease's record        retaken  the lease's record
--   superseded  the lease's record: renewed, but a newer tick wants to run
--   ended    '' (its run is over)      absent   '' (never seen, not there)
--   lost     the record of who has it now, or ''

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function keep(at, arg, answer, record)
  local note = redis.call('GETEX', KEYS[at + 1], 'PX', ARGV[arg + 3])
  if note and string.find(note, ' superseded', 1, true) then
    answer = 'superseded'
  end
  redis.call('ZADD', KEYS[1], now + ARGV[arg + 2], ARGV[arg + 5])
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[arg + 2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[arg + 2] + 86400000)
  end
  return answer, record
end

local function owner(arg)
  return 'lease ' .. ARGV[arg] .. ' ' .. ARGV[arg + 1] .. ' '
end

-- The record of a lease that ended before anyone renewed it: from its message's
-- record if that is left, else with a new token.
local function unseen(arg, note)
  local starts, nonce, token = string.match(note or '', '^open (%d+) %d+ (%S+) (%d+)')
  if nonce ~= ARGV[arg + 1] then
    local last = tonumber(redis.call('GET', KEYS[2]) or '0')
    starts, token = '1', string.format('%.0f', math.max(last + 1, now * 1000))
    redis.call('SET', KEYS[2], token)
  end
  return owner(arg) .. starts .. ' ' .. token .. ' '
    .. string.format('%.0f', now * 1000) .. ' ' .. ARGV[arg + 6]
end

local function over(arg, held, note)
  local own_claim = 'claim ' .. ARGV[arg] .. ' '
  return (note and (string.sub(note, 1, 4) == 'done'
      or string.match(note, '^open %d+ %d+ (%S+)') == '-' .. ARGV[arg + 1]))
    or (held and string.sub(held, 1, #own_claim) == own_claim)
end

local function free_for(at, arg, held, note, seen)
  if held and string.sub(held, 1, 6) == 'lease ' then
    return false
  end
  if note and string.match(note, '^open %d+ %d+ (%S+)') ~= ARGV[arg + 1] then
    return false
  end
  local token = tonumber(string.match(seen, '^%S+ %S+ %S+ %S+ (%d+)'))
  return tonumber(redis.call('GET', KEYS[at + 2]) or '0') <= token
end

local function renew(at, arg)
  local held = redis.call('GET', KEYS[at])
  if held and string.sub(held, 1, #owner(arg)) == owner(arg) then
    redis.call('PEXPIRE', KEYS[at], ARGV[arg + 2])
    return keep(at, arg, 'renewed', held)
  end
  local seen = ARGV[arg + 4]
  if seen == '' and ARGV[arg + 6] == '' then
    return 'absent', ''
  end
  local note = redis.call('GET', KEYS[at + 1])
  if over(arg, held, note) then
    return 'ended', ''
  end
  if seen == '' then
    seen = unseen(arg, note)
  end
  if not free_for(at, arg, held, note, seen) then
    return 'lost', held or ''
  end
  redis.call('SET', KEYS[at], seen, 'PX', ARGV[arg + 2])
  if not note then
    local starts, token = string.match(seen, '^%S+ %S+ %S+ (%d+) (%d+)')
    redis.call('SET', KEYS[at + 1],
      'open ' .. starts .. ' 0 ' .. ARGV[arg + 1] .. ' ' .. token, 'PX', ARGV[arg + 3])
  end
  return keep(at, arg, 'retaken', seen)
end

-- The first write of all: it passes at the server's memory limit, as a SET would not.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 86400000)

local answers = {}
for lease = 0, (#KEYS - 2) / 3 - 1 do
  local answer, record = renew(3 + lease * 3, 1 + lease * 7)
  answers[#answers + 1] = answer
  answers[#answers + 1] = record
end
return answers
