-- Do once, on a key of no meaning, everything that the other scripts do: a server
-- that refuses it would refuse them.
--
-- KEYS[1]  a key of no meaning
--
-- Returns 1.

redis.call('DEL', KEYS[1])
redis.call('TIME')
redis.call('SET', KEYS[1], '1', 'PX', 1000)
redis.call('PEXPIRE', KEYS[1], 1000)
redis.call('GETEX', KEYS[1], 'PX', 1000)
redis.call('GET', KEYS[1])
redis.call('EXISTS', KEYS[1])
redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('ZADD', KEYS[1], 1, 'member')
redis.call('ZSCORE', KEYS[1], 'member')
redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'LIMIT', 0, 1)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', 0)
redis.call('ZREM', KEYS[1], 'member')
redis.call('DEL', KEYS[1])
return 1
