"""Fair shares between tenants: the virtual token counter, VTC (Sheng et al., OSDI'24, arXiv 2401.00588)."""

import heapq
from collections import defaultdict, deque
from collections.abc import Mapping

from tempo_core.policies.ordered import arrival
from tempo_core.policies.plans import make_plan
from tempo_core.snapshot import Entry, Plan, Snapshot
from tempo_core.tenants import INPUT_WEIGHT, service


def vtc(snapshot: Snapshot, now_s: float) -> Plan:
    """The waiting tenant that has been served least goes next; who runs keeps its place.

    A tenant's counter grows by its prompt on admission and by each output token: `service` of all its requests, which
    the shell keeps in `Snapshot.served` (see `TenantCounters`). Without it a tenant's live requests count. Inside a
    tenant the first come goes first. Tenants weigh the same.
    """
    del now_s
    live: defaultdict[str, float] = defaultdict(float)
    for entry in snapshot.entries:
        live[entry.job.tenant] += service(entry)
    running = sorted((entry for entry in snapshot.entries if entry.running), key=arrival)
    return make_plan(snapshot, [*running, *_taking_turns(snapshot, {**live, **snapshot.served})])


def _taking_turns(snapshot: Snapshot, counters: Mapping[str, float]) -> list[Entry]:
    """The waiting requests in the order of admission, each charged to its tenant's counter as it goes."""
    queues: defaultdict[str, deque[Entry]] = defaultdict(deque)
    for entry in sorted((entry for entry in snapshot.entries if not entry.running), key=arrival):
        queues[entry.job.tenant].append(entry)
    turns = [(counters[tenant], tenant) for tenant in queues]
    heapq.heapify(turns)
    rank = []
    while turns:
        counter, tenant = turns[0]
        entry = queues[tenant].popleft()
        rank.append(entry)
        if queues[tenant]:
            charge = 0.0 if entry.generated else INPUT_WEIGHT * entry.job.prompt_tokens  # it was charged once
            heapq.heapreplace(turns, (counter + charge, tenant))
        else:
            heapq.heappop(turns)
    return rank
