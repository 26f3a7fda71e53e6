-- Forget completed messages of one partition soon, not only after completed_for.
--
-- KEYS     records of messages
-- ARGV[1]  how long each is still remembered, in milliseconds
--
-- Returns how many will be forgotten. A record stays that is not completed, or
-- of a message that was put off: its copy is still to come.

local forgotten = 0
for _, key in ipairs(KEYS) do
  local note = redis.call('GET', key)
  if note and string.match(note, '^done %d+ 0 ') then
    if redis.call('PTTL', key) > tonumber(ARGV[1]) then
      redis.call('PEXPIRE', key, ARGV[1])
    end
    forgotten = forgotten + 1
  end
end
return forgotten
