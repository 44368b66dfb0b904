"""How a ranking of the live requests becomes a plan: what the policies beside `tempo` share."""

from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import Final

import numpy as np

from tempo_core.lengths import Floats, remaining
from tempo_core.snapshot import Entry, Plan, Reason, Snapshot, table

_LEAST_S: Final = 1e-9  # a token that costs nothing would have a step hold any number


def make_plan(
    snapshot: Snapshot,
    rank: Sequence[Entry],
    *,
    preempt: Collection[Entry] = (),
    token_budget: int | None = None,
    max_running: int | None = None,
    reasons: Mapping[str, Reason] | None = None,
) -> Plan:
    """A plan from every entry, those that deserve service most first.

    What decodes comes before what prefills (the stall-free batches that engines have today), and who is preempted comes
    last, or it would take back the place that it gave. Where not given, budgets are the engine's, and reasons `RANKED`.
    """
    victims = dict.fromkeys(entry.job.id for entry in preempt)
    first = dict.fromkeys(entry.job.id for entry in rank if is_decoding(entry) and entry.job.id not in victims)
    rest = (entry.job.id for entry in rank if entry.job.id not in first and entry.job.id not in victims)
    order = [*first, *rest, *victims]
    return Plan(
        order=order,
        preempt=tuple(victims),
        token_budget=snapshot.max_step_tokens if token_budget is None else token_budget,
        max_running=snapshot.max_running if max_running is None else max_running,
        reasons={**dict.fromkeys(order, Reason.RANKED), **(reasons or {})},
    )


def to_compute(entry: Entry) -> int:
    """Tokens to compute before its next one comes: 1 while it decodes."""
    return max(entry.job.prompt_tokens + entry.generated - entry.computed, 0)


def is_decoding(entry: Entry) -> bool:
    """Whether it runs and its next step is one token."""
    return entry.running and entry.generated > 0 and to_compute(entry) <= 1


def displaced(rank: Sequence[Entry], places: int) -> list[Entry]:
    """Who gives way so that the best `places` run: the last ranked first, no more than there are newcomers in need."""
    running = sum(entry.running for entry in rank)
    newcomers = sum(not entry.running for entry in rank[:places])
    needed = newcomers - max(places - running, 0)
    return [entry for entry in reversed(rank[places:]) if entry.running][: max(needed, 0)]


def expected_tokens(snapshot: Snapshot) -> Floats:
    """Output tokens that each entry of a snapshot with at least one is expected still to need, shape (n,)."""
    facts, curves = table(snapshot.entries)
    generated = np.array([entry.generated for entry in snapshot.entries], dtype=np.float64)
    _, mean = remaining(curves, generated, snapshot.settings.length_quantile)
    to_come: Floats = np.minimum(mean, np.maximum(facts["max_tokens"] - generated, 1.0))
    return to_come


def tightest_tbt_s(entries: Collection[Entry]) -> float:
    """The least time between tokens that is promised among these; inf where none is."""
    return min((entry.job.slo.objectives.tbt_s for entry in entries), default=inf)


def prefill_room(snapshot: Snapshot, limit_s: float, decodes: int) -> int:
    """Tokens of prefill beside `decodes` in a step of at most `limit_s`."""
    step = snapshot.step_time
    left_s = max(limit_s - step.seconds(decodes, 0, context_tokens(snapshot)), 0.0)
    return int(min(left_s / max(step.per_prefill_token_s, _LEAST_S), snapshot.max_step_tokens))


def decode_room(snapshot: Snapshot, limit_s: float, decodes: int) -> int:
    """Sequences that a step of at most `limit_s` decodes, their contexts as long as those of the `decodes` at hand."""
    step = snapshot.step_time
    each_s = step.per_sequence_s + step.per_context_token_s * context_tokens(snapshot) / max(decodes, 1)
    return int(min(max(limit_s - step.base_s, 0.0) / max(each_s, _LEAST_S), snapshot.max_running))


def context_tokens(snapshot: Snapshot) -> int:
    """What the running requests have in the cache, together."""
    return sum(entry.computed for entry in snapshot.entries if entry.running)
