"""The process beside each engine: analyses requests, tracks their SLOs, and proxies to the engine."""
