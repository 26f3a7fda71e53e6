-- Renew the leases of one partition; take those up again that ended while
-- nobody could renew them, where nobody ran in between.
--
-- KEYS[1]    index of the partition
-- KEYS[2..]  for each lease: where it stands, its message's record, the token
--            of the newest lease that followed one that ended by itself
-- ARGV       for each lease: message id, delivery nonce, life of the lease in
--            milliseconds, life of the message's record in milliseconds, the
--            lease's record as last seen ('' if never), its name in the index
--
-- Returns for each lease an answer and a record:
--   renewed  the lease's record        retaken  the lease's record
--   ended    '' (its run is over)      absent   '' (never seen, not there)
--   lost     the record of who has it now, or ''

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function keep(at, arg, answer, record)
  redis.call('PEXPIRE', KEYS[at + 1], ARGV[arg + 3])
  redis.call('ZADD', KEYS[1], now + ARGV[arg + 2], 'lease ' .. ARGV[arg + 5])
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[arg + 2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[arg + 2] + 86400000)
  end
  return answer, record
end

local function free_for(at, arg, held, note, seen)
  if held and string.sub(held, 1, 6) == 'lease ' then
    return false
  end
  if note and string.match(note, '^open %d+ %d+ (.*)$') ~= ARGV[arg + 1] then
    return false
  end
  local token = tonumber(string.match(seen, '^%S+ %S+ %S+ %S+ (%d+)'))
  return tonumber(redis.call('GET', KEYS[at + 2]) or '0') <= token
end

local function renew(at, arg)
  local owner = 'lease ' .. ARGV[arg] .. ' ' .. ARGV[arg + 1] .. ' '
  local own_claim = 'claim ' .. ARGV[arg] .. ' '
  local held = redis.call('GET', KEYS[at])
  if held and string.sub(held, 1, #owner) == owner then
    redis.call('PEXPIRE', KEYS[at], ARGV[arg + 2])
    return keep(at, arg, 'renewed', held)
  end
  local seen = ARGV[arg + 4]
  if seen == '' then
    return 'absent', ''
  end
  local note = redis.call('GET', KEYS[at + 1])
  if (note and string.sub(note, 1, 4) == 'done')
      or (held and string.sub(held, 1, #own_claim) == own_claim) then
    return 'ended', ''
  end
  if not free_for(at, arg, held, note, seen) then
    return 'lost', held or ''
  end
  redis.call('SET', KEYS[at], seen, 'PX', ARGV[arg + 2])
  if not note then
    redis.call('SET', KEYS[at + 1],
      'open ' .. string.match(seen, '^%S+ %S+ %S+ (%d+)') .. ' 0 ' .. ARGV[arg + 1],
      'PX', ARGV[arg + 3])
  end
  return keep(at, arg, 'retaken', seen)
end

local answers = {}
for lease = 0, (#KEYS - 1) / 3 - 1 do
  local answer, record = renew(2 + lease * 3, 1 + lease * 6)
  answers[#answers + 1] = answer
  answers[#answers + 1] = record
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 86400000)
return answers
