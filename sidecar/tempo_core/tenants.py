"""What an engine's tenants have been served: the counters of VTC (Sheng et al., OSDI'24, arXiv 2401.00588)."""

from collections.abc import Collection, Mapping, Set
from heapq import nlargest
from typing import Final

from tempo_core.snapshot import Entry

INPUT_WEIGHT: Final = 1.0
OUTPUT_WEIGHT: Final = 2.0
MOST_IDLE: Final = 1024
"""Tenants without live requests that are remembered for certain; the rest are forgotten at twice as many."""


def service(entry: Entry) -> float:
    """What a live request has added to its tenant's counter: its prompt once admitted, and each token as it comes."""
    admitted = entry.running or entry.generated > 0
    return admitted * INPUT_WEIGHT * entry.job.prompt_tokens + OUTPUT_WEIGHT * entry.generated


class TenantCounters:
    """The virtual token counters of one engine, for `Snapshot.served`.

    What has ended is counted as it ends, what is live each time that a plan is made. A tenant that begins to wait is
    lifted to the least served of those that waited before, so that idle time is not banked. Forgetting a tenant that
    would be lifted anyway changes nothing, so those furthest ahead are remembered.
    """

    def __init__(self) -> None:
        self._past: dict[str, float] = {}
        self._waiting: Set[str] = frozenset()  # whose requests waited when last there were any

    def end(self, entry: Entry) -> None:
        """A request has ended."""
        self._add(entry.job.tenant, service(entry))

    def served(self, entries: Collection[Entry]) -> Mapping[str, float]:
        """The counter of each tenant that has one of these, all live requests; nothing where there is one tenant."""
        live = dict.fromkeys((entry.job.tenant for entry in entries), 0.0)
        if len(live) < 2 and self._past.keys() <= live.keys():
            self._waiting = frozenset(live) or self._waiting
            return {}
        for entry in entries:
            if entry.running or entry.generated:
                live[entry.job.tenant] += service(entry)
        self._lift({entry.job.tenant for entry in entries if not entry.running}, live)
        if len(self._past) > 2 * MOST_IDLE:
            self._forget(live.keys() | self._waiting)
        return {tenant: self._past.get(tenant, 0.0) + tokens for tenant, tokens in live.items()}

    def _lift(self, waiting: Set[str], live: Mapping[str, float]) -> None:
        """Lift those that begin to wait; where nobody goes on waiting, to who was the last to."""
        if newly := waiting - self._waiting:
            counters = {name: self._past.get(name, 0.0) + live.get(name, 0.0) for name in waiting | self._waiting}
            floor = min((counters[name] for name in waiting & self._waiting or self._waiting), default=0.0)
            for name in newly:
                self._add(name, max(floor - counters[name], 0.0))
        self._waiting = waiting or self._waiting

    def _forget(self, needed: Set[str]) -> None:
        idle = nlargest(MOST_IDLE, self._past.keys() - needed, key=self._past.__getitem__)
        self._past = {name: self._past[name] for name in (*idle, *(needed & self._past.keys()))}

    def _add(self, tenant: str, tokens: float) -> None:
        self._past[tenant] = self._past.get(tenant, 0.0) + tokens
