"""
A show of a guarded task among duplicates, redeliveries and killed workers.

``python -m onceguard.admin.demo`` starts a Redis, two workers and a beat of its
own, breaks them in turn, and tells live what ran, what was refused and why. It
ends by itself within a minute and leaves nothing behind. ``--unguarded`` gives
the same show without onceguard: things run twice, and it exits with 1.
"""
