"""Scheduling policies: peers with one signature, so that comparing two is a matter of a name."""

from collections.abc import Callable, Mapping
from typing import Final

from tempo_core.policies.ordered import fcfs, priority
from tempo_core.policies.tempo import tempo
from tempo_core.snapshot import Plan, Snapshot

Policy = Callable[[Snapshot, float], Plan]

POLICIES: Final[Mapping[str, Policy]] = {"fcfs": fcfs, "priority": priority, "tempo": tempo}
"""By the name that `TempoPool.spec.scheduler.policy` takes."""

schedule: Final = tempo
"""The policy that Tempo is named for."""
