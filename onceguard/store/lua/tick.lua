-- Claim a tick of a schedule entry, and the key of the call that it would send.
--
-- KEYS[1]  state of the entry: last slot, when it was claimed, skips in a row,
--          message id, and what that message was answered
-- KEYS[2]  lock of the key
-- KEYS[3]  claim of the tick that waits for the end of the running call
-- KEYS[4]  index of the key's partition
-- ARGV[1]  the scheduled instant, in unix milliseconds; '' for an interval
-- ARGV[2]  least milliseconds between the last slot and this one; '': any is new
-- ARGV[3]  milliseconds from this slot to the next
-- ARGV[4]  life of the entry's state, in milliseconds
-- ARGV[5]  milliseconds between two ticks of an interval, else 0
-- ARGV[6]  milliseconds that the tick may be late; '' for any
-- ARGV[7]  message id
-- ARGV[8]  its task id
-- ARGV[9]  life of the claim, in milliseconds; 0 to claim nothing
-- ARGV[10] the key, as the index lists it
-- ARGV[11] how message ids of this entry's ticks begin
-- ARGV[12] what to do if the key is free; '' to send without looking at it
-- ARGV[13] if a call with the key is queued
-- ARGV[14] if one runs
-- ARGV[15] if one runs, and a tick waits for its end
-- ARGV[16] 1 if no firing follows: skipped, it is to be tried again, so it is not claimed
-- ARGV[17] how many milliseconds ago an interval's tick fell due where it is asked for;
--          '' or nothing: an interval after the last one
--
-- Returns {verdict, the entry's state before and now, server time, when the tick
-- was due, both in unix milliseconds, record of who is in the way, its time left
-- in milliseconds, the claim that the tick's will replace when it is sent, 1 if the
-- new tick waits, ids of messages to supersede then}.
-- Verdicts: taken, missed, and what the last four arguments say. A last slot that
-- is further ahead than a period, of this slot and of the server's time, and that
-- nobody followed up for as long, is from a clock that was wrong, or the server's
-- was set back.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local slot = tonumber(ARGV[1]) or now
local before = redis.call('GET', KEYS[1]) or ''
local last, claimed, skips, claimant = string.match(before, '^(%d+) (%d+) (%d+) (%S+)')
last, claimed, skips = tonumber(last), tonumber(claimed), tonumber(skips) or 0
local told = string.match(before, '^%S+ %S+ %S+ %S+ (.*)$')
if claimant == ARGV[7] and told then -- the first reply was lost
  return cjson.decode(told)
end
before = string.match(before, '^%d+ %d+ %d+ %S+') or ''

if last and ARGV[2] ~= '' and slot < last + tonumber(ARGV[2]) then
  local period = tonumber(ARGV[3])
  local wrong = math.min(last - slot, last - now) > period
    and (now - claimed >= 1.5 * period or claimed > now)
  if not wrong then
    return {'taken', before, before, now, slot, '', 0, '', 0, {}}
  end
end

local due = slot
if ARGV[1] == '' and last then
  due = math.min(now, last + tonumber(ARGV[5]))
  if (ARGV[17] or '') ~= '' then
    due = math.max(due, now - tonumber(ARGV[17]))
  end
end

local function answer(verdict, holder, left, replaced, waits, superseded)
  if ARGV[16] == '1' and (verdict == 'skip' or verdict == 'drop') then
    return {verdict, before, before, now, due, holder, left, '', 0, {}}
  end
  local unsent = verdict == 'missed' or verdict == 'skip' or verdict == 'drop'
  local state = string.format('%.0f %.0f %d ', slot, now, unsent and skips + 1 or 0) .. ARGV[7]
  local reply = {verdict, before, state, now, due, holder, left, replaced, waits, superseded}
  redis.call('SET', KEYS[1], state .. ' ' .. cjson.encode(reply), 'PX', ARGV[4])
  return reply
end

if ARGV[6] ~= '' and now - due > tonumber(ARGV[6]) then
  return answer('missed', '', 0, '', 0, {})
end
if ARGV[12] == '' then
  return answer('send', '', 0, '', 0, {})
end

local function id_of(record)
  return string.match(record, '^%S+ (%S+)')
end

local lock, waiting = redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3])
local running = lock and string.sub(lock, 1, 6) == 'lease '
local found = 0
if running then
  found = waiting and 3 or 2
elseif lock or waiting then
  found = 1
end
local verdict = ARGV[12 + found]
local holder = lock or waiting or ''
local left = 0
if holder ~= '' then
  left = redis.call('PTTL', lock and KEYS[2] or KEYS[3])
end

-- Where the tick's claim stands, and the one in whose place it will when it is sent:
-- until then that one stays, lest a beat that dies leave its message without.
local at, replaced, superseded = KEYS[2], '', {}
if verdict == 'replace' then
  if waiting and (running or not lock) then
    at, replaced = KEYS[3], waiting
  else
    replaced = lock
  end
  superseded = {id_of(replaced)}
elseif verdict == 'buffer' then
  at = KEYS[3]
elseif verdict == 'cancel' then
  at, replaced = KEYS[3], waiting or ''
  superseded = {id_of(lock)}
  if waiting then
    superseded[2] = id_of(waiting)
  end
end
if replaced ~= '' and string.sub(id_of(replaced), 1, #ARGV[11]) ~= ARGV[11] then
  verdict = running and 'drop' or 'skip' -- another caller's message is not ours to supersede
end
if verdict == 'skip' or verdict == 'drop' then
  return answer(verdict, holder, left, '', 0, {})
end

if ARGV[9] ~= '0' and replaced == '' then
  redis.call('SET', at,
    'claim ' .. ARGV[7] .. ' ' .. string.format('%.0f', now) .. ' ' .. ARGV[8], 'PX', ARGV[9])
  if at == KEYS[2] then
    redis.call('ZADD', KEYS[4], now + ARGV[9], ARGV[10])
    if redis.call('PTTL', KEYS[4]) < tonumber(ARGV[9]) then
      redis.call('PEXPIRE', KEYS[4], ARGV[9] + 86400000)
    end
  end
end
return answer(verdict, holder, left, replaced, at == KEYS[3] and 1 or 0, superseded)
