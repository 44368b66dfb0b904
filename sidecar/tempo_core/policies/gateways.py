"""What today's gateways do with classes of traffic: strict order between them, and different things inside.

Both queue in front of the engine and serve as places fall free; here the engine's own queue is theirs.
"""

from typing import Final

from tempo_core.policies.ordered import arrival, deadline_s, waited_s
from tempo_core.policies.plans import make_plan
from tempo_core.slo import Pattern
from tempo_core.snapshot import Entry, Plan, Reason, Snapshot

_CLASSES: Final = {Pattern.LATENCY: 0, Pattern.DEADLINE: 1, Pattern.COLLECTIVE: 1, Pattern.BEST_EFFORT: 2}
_STARVED_S: Final = (5.0, 30.0, 120.0)
_MAY_PREEMPT: Final = 0


def llmd(snapshot: Snapshot, now_s: float) -> Plan:
    """llm-d's router: strict priority bands, `slo-deadline` order inside, nothing preempted.

    A band is an objective's priority; here it is the class's weight, heaviest first, and best effort, which llm-d
    calls sheddable, comes last. Its deadline is arrival + the TTFT header; requests that must end by some time carry
    that time there, as its batch gateway does. Without either a request waits behind all others of its band: nothing
    protects it from starving. Not modelled: flow fairness (`global-strict`, its default, has none), shedding.
    """
    del now_s
    rank = sorted(snapshot.entries, key=lambda entry: (not entry.running, *_band(entry), *arrival(entry)))
    return make_plan(snapshot, rank)


def _band(entry: Entry) -> tuple[bool, float, float]:
    slo = entry.job.slo
    return slo.pattern is Pattern.BEST_EFFORT, -slo.gain.weight, deadline_s(entry.job)


def smg(snapshot: Snapshot, now_s: float) -> Plan:
    """SMG's priority scheduler: classes in strict order, first come first served inside, with starvation promotion.

    Streams are `interactive`, deadlines and programs `default`, best effort `bulk`. The head of a class that has waited
    its threshold (5, 30, 120 s) goes first of all, the lowest class's first. An interactive request without a place
    takes that of a lower one whose first token is not out, of the lowest class and with the least work done. Not
    modelled: queue limits and timeouts, and reserved slots, whose defaults (160) are more than most engines have.
    """
    waiting = sorted((e for e in snapshot.entries if not e.running), key=lambda e: (_class(e), *arrival(e)))
    starved = _starved_heads(waiting, now_s)
    ids = {entry.job.id for entry in starved}
    running = sorted((e for e in snapshot.entries if e.running), key=lambda e: (_class(e), *arrival(e)))
    line = [*starved, *(entry for entry in waiting if entry.job.id not in ids)]
    free = max(snapshot.max_running - len(running), 0)
    urgent = [entry for entry in line[free:] if _class(entry) == _MAY_PREEMPT]
    victims = sorted(
        (e for e in running if _class(e) > _MAY_PREEMPT and not e.generated),
        key=lambda e: (-_class(e), e.computed, *arrival(e)),
    )[: len(urgent)]
    # A slot that falls free is the next in line's; one that was cleared is its preemptor's.
    preemptors = {entry.job.id for entry in urgent[: len(victims)]}
    line[free:] = sorted(line[free:], key=lambda entry: entry.job.id not in preemptors)
    return make_plan(snapshot, [*running, *line], preempt=victims, reasons=dict.fromkeys(ids, Reason.AGED))


def _class(entry: Entry) -> int:
    return _CLASSES[entry.job.slo.pattern]


def _starved_heads(waiting: list[Entry], now_s: float) -> list[Entry]:
    heads: dict[int, Entry] = {}
    for entry in waiting:
        heads.setdefault(_class(entry), entry)
    return [heads[rank] for rank in sorted(heads, reverse=True) if waited_s(heads[rank], now_s) > _STARVED_S[rank]]
