"""
Decisions without side effects: options, settings, keys, outcomes, identities.

Nothing here does I/O, reads a clock or knows Celery, so every rule can be
tested as a function and used alike by publishers, workers and beat.
"""
