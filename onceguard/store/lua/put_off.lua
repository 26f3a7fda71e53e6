-- Record that a newer copy of a message is under way.
--
-- KEYS[1]  record of the message
-- ARGV[1]  generation of the copy
-- ARGV[2]  life of the message's record, in milliseconds
--
-- Returns the generation that the record has now: it never goes back.

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
