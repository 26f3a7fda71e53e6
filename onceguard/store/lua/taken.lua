-- Stands between voted.lua and a script that takes a key.
--
-- KEYS[last]  the promise of the look before
-- ARGV[..]    for each string that was looked at, four: its place in KEYS, its value then,
--             the value that the masters agreed on, and that one's life in milliseconds,
--             -1 for ever
-- ARGV[last - 4]  how many these are
-- ARGV[last - 3]  id of that look
-- ARGV[last - 2]  fencing token of the lease, above all that the masters know
--
-- Answers with an error, and changes nothing, if another has looked since (OUTVOTED), or
-- something is neither as it was seen nor as it was agreed on (CHANGED).

local promise, id, token = KEYS[#KEYS], ARGV[#ARGV - 3], ARGV[#ARGV - 2]
local last = #ARGV - 5
local first = last - 4 * ARGV[#ARGV - 4] + 1
if master.call('GET', promise) ~= id then
  return master.error_reply('OUTVOTED by another taker')
end
for at = first, last, 4 do
  local found = master.call('GET', KEYS[tonumber(ARGV[at])]) or ''
  if found ~= ARGV[at + 1] and found ~= ARGV[at + 2] then
    return master.error_reply('CHANGED since it was looked at')
  end
end
master.call('DEL', promise)
for at = first, last, 4 do
  local key, agreed, life = KEYS[tonumber(ARGV[at])], ARGV[at + 2], ARGV[at + 3]
  if agreed == ARGV[at + 1] then
    life = nil -- it is right, or comes to its end by itself
  elseif agreed == '' then
    master.call('DEL', key)
  elseif life == '-1' then
    master.call('SET', key, agreed)
  else
    master.call('SET', key, agreed, 'PX', life)
  end
end
local KEYS = {unpack(KEYS, 1, #KEYS - 1)}

-- The token is the same on all masters; the counter never goes back on any. Not every
-- master's index lists the lease before: each is taken to have ended by itself.
local call = redis.call

local function is_counter(key)
  return key and string.sub(key, select(2, string.find(key, '}:', 1, true)) + 1) == 'fence'
end

function redis.call(command, key, ...)
  if command == 'ZSCORE' then
    return call(command, key, ...) or '0'
  end
  if not is_counter(key) then
    return call(command, key, ...)
  end
  if command == 'GET' then
    return string.format('%.0f', token - 1)
  end
  local known = tonumber(master.call('GET', key) or '0')
  return master.call('SET', key, string.format('%.0f', math.max(known, token)))
end

