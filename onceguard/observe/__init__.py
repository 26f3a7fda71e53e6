"""What happened to each call: events, log lines and Celery signals."""
