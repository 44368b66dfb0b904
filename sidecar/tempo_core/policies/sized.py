"""Shortest first, by predicted lengths: the same predictions that `tempo` has."""

from tempo_core.density import outlook
from tempo_core.policies.ordered import arrival
from tempo_core.policies.plans import displaced, expected_tokens, make_plan
from tempo_core.snapshot import Plan, Snapshot


def sjf(snapshot: Snapshot, now_s: float) -> Plan:
    """Shortest predicted response first; who runs keeps its place.

    The order of LTR (arXiv 2408.15792), which ranks by output length alone. Its learned ranking is replaced by the
    expected total length, and only who waits is ranked, where LTR's engine swaps running requests too (`srtf` is the
    preemptive one here). Its optional starvation counter is off.
    """
    del now_s
    if not snapshot.entries:
        return make_plan(snapshot, ())
    total = dict(zip((e.job.id for e in snapshot.entries), expected_tokens(snapshot).tolist(), strict=True))
    rank = sorted(
        snapshot.entries,
        key=lambda entry: (not entry.running, entry.generated + total[entry.job.id], *arrival(entry)),
    )
    return make_plan(snapshot, rank)


def srtf(snapshot: Snapshot, now_s: float) -> Plan:
    """Shortest predicted remaining time first, preemptive.

    The speculative scheduling of ALISE (arXiv 2410.23537): a job's priority is its estimated remaining execution time,
    prefill and decode, refined as it runs; who is preempted prefills again, which its estimate includes. Not modelled:
    its queues' aging, and its swapping and compression of the victims' caches.
    """
    if not snapshot.entries:
        return make_plan(snapshot, ())
    left_s = outlook(snapshot, now_s).run_s.tolist()
    ranked = sorted(
        zip(left_s, snapshot.entries, strict=True),
        key=lambda pair: (pair[0], not pair[1].running, *arrival(pair[1])),
    )
    rank = [entry for _, entry in ranked]
    return make_plan(snapshot, rank, preempt=displaced(rank, snapshot.max_running))
