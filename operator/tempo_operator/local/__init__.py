"""A pool as processes on this machine."""
