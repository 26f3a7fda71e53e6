"""
Settings of the demo's app, as a project would write them.

The seconds are short so that the show is: a real visibility timeout is an hour,
and a lease 30 s.
"""

from __future__ import annotations

import os

from onceguard.admin.demo.place import DIRECTORY, UNGUARDED, broker_socket

_socket = broker_socket(os.environ[DIRECTORY])

broker_url = f"redis+socket://{_socket}"
result_backend = f"redis+socket://{_socket}?virtual_host=1"
broker_transport_options = {
    "visibility_timeout": 3,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}
worker_concurrency = 2
worker_prefetch_multiplier = 1
beat_schedule = {"sync": {"task": "sync", "schedule": 2.0, "args": [3], "once": True}}

once_defaults = {"lease_ttl": 3}
once_enabled = os.environ.get(UNGUARDED) != "1"
