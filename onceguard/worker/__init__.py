"""The worker's side: start, renewal and end of each run."""
