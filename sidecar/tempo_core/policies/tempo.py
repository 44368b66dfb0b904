"""Placeholder until written; see policies.__init__."""

from tempo_core.policies.ordered import fcfs as tempo

__all__ = ["tempo"]
