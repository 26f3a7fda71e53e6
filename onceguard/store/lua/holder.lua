-- Read who holds a key.
--
-- KEYS[1]  the lock
--
-- Returns {record, time left in milliseconds}; the record is '' if it is free.

local held = redis.call('GET', KEYS[1])
if not held then
  return {'', 0}
end
return {held, redis.call('PTTL', KEYS[1])}
