-- Record that a newer copy of a message is under way.
--
-- KEYS[1]  record of the message
-- KEYS[2]  claim of the tick that waits for a run's end, if this is one, else KEYS[1]
-- ARGV[1]  generation of the copy
-- ARGV[2]  life of the message's record, in milliseconds
-- ARGV[3]  message id
-- ARGV[4]  what the waiting tick's claim has to live from now, in milliseconds
--
-- Returns the generation that the record has now: it never goes back.

local mine = 'claim ' .. ARGV[3] .. ' '
local waiting = redis.call('GET', KEYS[2])
if waiting and string.sub(waiting, 1, #mine) == mine then
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
local state, starts, generation, nonce = 'open', '0', 0, '-'
local note = redis.call('GET', KEYS[1])
if note then
  local g
  state, starts, g, nonce = string.match(note, '^(%S+) (%d+) (%d+) (.*)$')
  generation = tonumber(g)
end
generation = math.max(generation, tonumber(ARGV[1]))
redis.call('DEL', KEYS[1]) -- first: it passes at the memory limit
redis.call('SET', KEYS[1],
  state .. ' ' .. starts .. ' ' .. generation .. ' ' .. nonce, 'PX', ARGV[2])
return generation
