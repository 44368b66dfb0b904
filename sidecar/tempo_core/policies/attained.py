"""Program-level least attained service: Autellix (arXiv 2502.13965).

A program whose finished calls took much goes behind one whose calls took little: short programs overtake long ones
without anyone predicting a length. Service is counted in output tokens and discretised into queues of `BIN_TOKENS`, so
that neighbours don't preempt each other at every token: a call begins in the queue that its program has come to, and
goes down one with each bin that it takes itself. Inside a queue, and among equals, who came first goes first. A better
queue takes the places of a worse one.

Against starvation a call goes up to the first queue once its program has waited `STARVED` times as long as it was
served. Where the paper keeps a window of waits and service for each call, both come from the facts here: service is the
whole bins so far at the present pace, and waiting is the rest of the program's life, tool calls between included. Whole
bins, so that a call that went up stays until it has taken one more.

Not modelled: swapping instead of recompute, and the routing between engines.
"""

from typing import Final

from tempo_core.policies.ordered import arrival
from tempo_core.policies.plans import context_tokens, displaced, make_plan
from tempo_core.snapshot import Entry, Plan, Reason, Snapshot

BIN_TOKENS: Final = 400
STARVED: Final = 8.0
"""Waiting over service from which a program is starved; the paper leaves the figure to whoever runs it."""


def plas(snapshot: Snapshot, now_s: float) -> Plan:
    """Least service of the program's finished calls, together: PLAS, for programs whose calls follow each other."""
    return _least_attained(snapshot, now_s, {e.job.id: e.job.attained_tokens for e in snapshot.entries})


def atlas(snapshot: Snapshot, now_s: float) -> Plan:
    """Least service along the chain of finished calls that leads here: ATLAS, for programs with parallel calls.

    Siblings stand as if each were alone, so that a wide program is not held back for its width.
    """
    return _least_attained(snapshot, now_s, {e.job.id: e.job.critical_tokens for e in snapshot.entries})


def _least_attained(snapshot: Snapshot, now_s: float, attained: dict[str, float]) -> Plan:
    running = sum(entry.running for entry in snapshot.entries)
    token_s = snapshot.step_time.seconds(running, 0, context_tokens(snapshot))

    def queue(entry: Entry) -> tuple[int, float]:
        """The queue that it stands in, from 0, and since when it may be counted there."""
        level = int((attained[entry.job.id] + entry.generated) // BIN_TOKENS)
        served_s = level * BIN_TOKENS * token_s
        starved_at_s = entry.job.program_arrival_s + (1.0 + STARVED) * served_s
        return (0, starved_at_s) if level and now_s >= starved_at_s else (level, entry.job.arrival_s)

    queues = {entry.job.id: queue(entry) for entry in snapshot.entries}
    # Who runs goes before its equals: within a queue nobody is preempted.
    rank = sorted(
        snapshot.entries,
        key=lambda e: (queues[e.job.id][0], not e.running, queues[e.job.id][1], *arrival(e)),
    )
    starved = [e.job.id for e in rank if not queues[e.job.id][0] and attained[e.job.id] + e.generated >= BIN_TOKENS]
    preempt = displaced(rank, snapshot.max_running)
    return make_plan(snapshot, rank, preempt=preempt, reasons=dict.fromkeys(starved, Reason.AGED))
