"""What people run: the demo, and what looks into a running system."""
