"""Routers to compare: who is sent next, and to which replica. Tempo's is the one that ships (`tempo_core.admission`).

A router is a line, in which requests wait or do not, and a choice of replica. Rivals' are what their documents say:
llm-d's priority bands, `slo-deadline` order, utilization detector and default scorers (prefix 3, queue 2, cache 2);
SMG's classes with promotion of aged heads, and its cache-aware choice (threshold 0.3, imbalance 64 and 1.5); the latter
alone is also the vLLM router's. Not modelled: shedding, time-outs, and state that is older than the request.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from tempo_core.admission import Gate, engines
from tempo_core.routing import Demand, Replica, choose, room, work_tokens
from tempo_core.slo import Pattern
from tempo_core.snapshot import Job, Settings

Replicas = Sequence[Replica]
Look = Callable[["Offer"], Replicas]
"""The replicas as the router sees them for a request."""


class Offer(NamedTuple):
    """A request at the router."""

    job: Job
    demand: Demand
    blocks: tuple[int, ...]
    """Of its prompt; see `SimCall.prefix`."""
    crowds: bool = False
    """Whether its tenant crowds (`tempo_core.crowds`)."""


class Line(Protocol):
    """Where requests wait."""

    def join(self, offer: Offer, now_s: float) -> None:
        """A request arrives."""

    def next(self, now_s: float, look: Look) -> Offer | None:
        """Who is sent now, if anybody."""
        ...

    def ended(self, offer: Offer, output_tokens: int, now_s: float) -> None:
        """One that was sent has ended, after so many tokens."""


class Pick(Protocol):
    """Which replica."""

    def __call__(self, offer: Offer, replicas: Replicas) -> Replica:
        """One of these, of which there is at least one."""
        ...


# -- lines -----------------------------------------------------------------------------------------------------------


class Straight(Line):
    """Nobody waits here: engines' own queues are the only ones."""

    def __init__(self, settings: Settings) -> None:
        del settings
        self._line: deque[Offer] = deque()

    def join(self, offer: Offer, now_s: float) -> None:
        """See `Line`."""
        del now_s
        self._line.append(offer)

    def next(self, now_s: float, look: Look) -> Offer | None:
        """See `Line`."""
        del now_s, look
        return self._line.popleft() if self._line else None


class Gated(Line):
    """Tempo's gate."""

    def __init__(self, settings: Settings) -> None:
        self._gate = Gate(1 << 30, settings)
        self._offers: dict[str, Offer] = {}
        self._new: list[Job] = []

    def join(self, offer: Offer, now_s: float) -> None:
        """See `Line`."""
        del now_s
        self._offers[offer.job.id] = offer
        self._new.append(offer.job)

    def next(self, now_s: float, look: Look) -> Offer | None:
        """See `Line`."""
        if not self._offers:
            return None
        replicas = look(next(iter(self._offers.values())))
        together = engines(replicas)
        for job in self._new:
            self._gate.hold(job, now_s, together)
        self._new.clear()
        if not any(map(room, replicas)):
            return None
        to_place = any(room(replica, crowds=True) for replica in replicas)
        released = self._gate.release(now_s, together, to_place=to_place)
        if released is None:
            return None
        offer, crowds = self._offers.pop(released.id), self._gate.crowds(released.tenant, together.places, now_s)
        self._gate.begins(released.tenant, released.slo.name, _work(offer, offer.demand.output_tokens), now_s)
        return offer._replace(crowds=crowds)

    def ended(self, offer: Offer, output_tokens: int, now_s: float) -> None:
        """See `Line`."""
        more = _work(offer, output_tokens) - _work(offer, offer.demand.output_tokens)
        self._gate.ends(offer.job.tenant, offer.job.slo.name, more, now_s)


def _work(offer: Offer, output_tokens: float) -> float:
    return work_tokens(offer.job.prompt_tokens, output_tokens)


class Bands(Line):
    """llm-d's flow control: priority bands in strict order, inside by deadline, held while the pool is saturated."""

    def __init__(self, settings: Settings) -> None:
        del settings
        self._waiting: dict[str, Offer] = {}

    def join(self, offer: Offer, now_s: float) -> None:
        """See `Line`."""
        del now_s
        self._waiting[offer.job.id] = offer

    def next(self, now_s: float, look: Look) -> Offer | None:
        """See `Line`."""
        del now_s
        if not self._waiting:
            return None
        replicas = look(next(iter(self._waiting.values())))
        saturation = sum(max(replica.waiting / 5, replica.cache_used / 0.8) for replica in replicas) / len(replicas)
        if saturation >= 1.0:
            return None
        first = min(self._waiting.values(), key=_band)
        return self._waiting.pop(first.job.id)


def _band(offer: Offer) -> tuple[bool, float, float, float]:
    slo, job = offer.job.slo, offer.job
    due_s = job.arrival_s + slo.objectives.ttft_s if slo.pattern is Pattern.LATENCY else job.deadline_s
    return slo.pattern is Pattern.BEST_EFFORT, -slo.gain.weight, due_s, job.arrival_s


class Classes(Line):
    """SMG's classes: as many in flight as all replicas have places; strict order, and heads that have aged first."""

    def __init__(self, settings: Settings) -> None:
        del settings
        self._lines: dict[tuple[float, float], deque[Offer]] = {}

    def join(self, offer: Offer, now_s: float) -> None:
        """See `Line`."""
        del now_s
        slo = offer.job.slo
        rank = (-slo.gain.weight, float(list(Pattern).index(slo.pattern)))
        self._lines.setdefault(rank, deque()).append(offer)

    def next(self, now_s: float, look: Look) -> Offer | None:
        """See `Line`."""
        lines = [self._lines[rank] for rank in sorted(self._lines) if self._lines[rank]]
        if not lines:
            return None
        replicas = look(lines[0][0])
        if sum(replica.in_flight - replica.places for replica in replicas) >= 0:
            return None
        ranks = {id(self._lines[rank]): i for i, rank in enumerate(sorted(self._lines))}
        aged = [line for line in reversed(lines) if now_s - line[0].job.arrival_s > _starved_s(ranks[id(line)])]
        return (aged or lines)[0].popleft()


def _starved_s(rank: int) -> float:
    return (5.0, 30.0, 120.0)[min(rank, 2)]


# -- choices ---------------------------------------------------------------------------------------------------------


class RoundRobin:
    """Each in turn."""

    def __init__(self) -> None:
        self._turn = -1

    def __call__(self, offer: Offer, replicas: Replicas) -> Replica:
        """See `Pick`."""
        del offer
        self._turn += 1
        return replicas[self._turn % len(replicas)]


def least_loaded(offer: Offer, replicas: Replicas) -> Replica:
    """The one with the fewest requests in flight."""
    del offer
    return min(replicas, key=lambda replica: replica.in_flight)


def cache_aware(offer: Offer, replicas: Replicas) -> Replica:
    """The best prefix match, if there is one worth the name and load is balanced; else the fewest in flight."""
    load = [replica.in_flight for replica in replicas]
    unbalanced = max(load) - min(load) > 64 and max(load) > 1.5 * min(load)
    best = max(replicas, key=lambda replica: replica.prefix_tokens)
    if unbalanced or best.prefix_tokens < 0.3 * offer.job.prompt_tokens:
        return least_loaded(offer, replicas)
    return best


def scored(offer: Offer, replicas: Replicas) -> Replica:
    """llm-d's default profile: prefix hits (3), a short queue (2), a free cache (2), each from 0 to 1."""
    longest, shortest = max(r.waiting for r in replicas), min(r.waiting for r in replicas)

    def score(replica: Replica) -> float:
        queue = (longest - replica.waiting) / (longest - shortest) if longest > shortest else 1.0
        hits = replica.prefix_tokens / max(offer.job.prompt_tokens, 1)
        return 3.0 * hits + 2.0 * queue + 2.0 * (1.0 - replica.cache_used)

    return max(replicas, key=score)


class MostGain:
    """Tempo's choice, of the replicas that have room; of all, if nobody was asked to wait for it."""

    def __init__(self) -> None:
        self._random = Random("routes")  # noqa: S311  # reproducible on purpose

    def __call__(self, offer: Offer, replicas: Replicas) -> Replica:
        """See `Pick`."""
        roomy = [replica for replica in replicas if room(replica, crowds=offer.crowds)] or replicas
        return choose(roomy, offer.demand, self._random.randrange) or replicas[0]


Router = tuple[Line, Pick]


@dataclass(frozen=True, slots=True)
class RouterKind:
    """How a router is made."""

    line: Callable[[Settings], Line]
    pick: Callable[[], Pick]

    def make(self, settings: Settings) -> Router:
        """One, for one run."""
        return self.line(settings), self.pick()


DIRECT: Final = "direct"
"""No line, and what takes Tempo's choice of replica."""

ROUTERS: Final[Mapping[str, RouterKind]] = MappingProxyType(
    {
        DIRECT: RouterKind(Straight, MostGain),
        "tempo": RouterKind(Gated, MostGain),
        "round-robin": RouterKind(Straight, RoundRobin),
        "least-loaded": RouterKind(Straight, lambda: least_loaded),
        "prefix-aware": RouterKind(Straight, lambda: cache_aware),
        "llmd": RouterKind(Bands, lambda: scored),
        "smg": RouterKind(Classes, lambda: cache_aware),
    }
)
"""By name."""
