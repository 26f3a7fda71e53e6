"""Where claims, leases and the memory of messages are kept."""
