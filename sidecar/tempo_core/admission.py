"""What waits at the router for a replica: a bounded queue in order of what waiting loses, fair to tenants.

While replicas have room nothing waits here. When they have none, what comes next is a better question than who came
first: the fleet is taken for one large engine, and those who wait are ranked as its scheduler would rank them
(`tempo_core.density`), so that router and engines want the same. No I/O; time is an argument, absolute seconds.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from math import inf
from operator import attrgetter
from typing import Final, NamedTuple

import numpy as np

from tempo_core.crowds import Crowds
from tempo_core.density import outlook
from tempo_core.routing import Replica
from tempo_core.snapshot import Entry, Job, Settings, Snapshot
from tempo_core.steptime import StepTime

FRAME_S: Final = 0.05
"""The order is worked out again at most so often; nobody's first token is due sooner than a few of these."""
_AGED_EVERY: Final = 128
"""One release of so many goes to who has waited longest, if that is longer than the pool's patience."""
_BURST_S: Final = 0.5
"""By how much of the fleet's time a tenant may be ahead of the least served of its class before it stands back."""
_TENANTS: Final = 10_000
_USUAL_PLACES: Final = 256
"""vLLM's default, where an engine does not say."""


class Engines(NamedTuple):
    """All replicas together, as one engine."""

    places: int = 1
    tokens_per_s: float = 1.0
    replicas: int = 1
    step: StepTime = StepTime()
    """Of one replica."""


class Shares:
    """What each tenant has been served, in tokens of work, by `share_of` it in its class: tenants share a class.

    A tenant that begins to wait is lifted to the least served of those that wait (VTC, Sheng et al., OSDI'24): time in
    which it asked for nothing is not saved up.
    """

    def __init__(self) -> None:
        self._served: OrderedDict[str, float] = OrderedDict()  # the longest untouched first
        self._floors: dict[str, float] = {}  # by class: what the least served that waited had
        self._unshared: dict[str, float] = {}

    def charge(self, tenant: str, tokens: float) -> None:
        """The tenant was served; less than nothing, where less came than was expected."""
        self._served[tenant] = self._counter(tenant) + tokens
        self._served.move_to_end(tenant)
        if len(self._served) > _TENANTS:
            self._served.popitem(last=False)

    def serve(self, tenant: str, tokens: float, *, unopposed: bool = False) -> None:
        """As `charge`, for what was served here, of which other routers are to learn (`drain`).

        `unopposed`: nobody waited for it, so the tenant took nothing from anybody, and owes nothing.
        """
        self.charge(tenant, tokens)
        self._unshared[tenant] = self._unshared.get(tenant, 0.0) + tokens
        if len(self._unshared) > _TENANTS:
            del self._unshared[next(iter(self._unshared))]
        if unopposed:
            name = _class_of(tenant)
            self._floors[name] = max(self._floors.get(name, 0.0), self._served[tenant])

    def drain(self, most: int) -> dict[str, float]:
        """What tenants were served here since it was last asked for, of so many of them; the rest comes next time."""
        tenants = list(islice(self._unshared, most))
        return {tenant: self._unshared.pop(tenant) for tenant in tenants}

    def lately(self, most: int) -> list[str]:
        """Those that were last charged or began to wait, so many of them."""
        return list(islice(reversed(self._served), most))

    def joins(self, tenant: str) -> None:
        """The tenant begins to wait."""
        self.charge(tenant, max(self._floor(tenant) - self._counter(tenant), 0.0))

    def leads(self, waiting: Iterable[str]) -> dict[str, float]:
        """How far ahead of the least served of its class among these each is."""
        served = {tenant: self._counter(tenant) for tenant in waiting}
        least: dict[str, float] = {}
        for tenant, tokens in served.items():
            name = _class_of(tenant)
            least[name] = min(least.get(name, inf), tokens)
        for name, tokens in least.items():
            self._floors[name] = max(self._floors.get(name, 0.0), tokens)
        return {tenant: max(tokens - self._floor(tenant), 0.0) for tenant, tokens in served.items()}

    def _counter(self, tenant: str) -> float:
        served = self._served.get(tenant)
        return self._floor(tenant) if served is None else served

    def _floor(self, tenant: str) -> float:
        return self._floors.get(_class_of(tenant), 0.0)


def share_of(tenant: str, slo_class: str) -> str:
    """A tenant's name in `Shares`: in each class it is another."""
    return f"{slo_class}/{tenant}"


def _class_of(share: str) -> str:
    name, slash, _ = share.partition("/")
    return name if slash else ""


class Gate:
    """Those who wait, by id.

    Args:
        capacity: how many there may be; of one more, the least deserving is shed.
        settings: the pool's.

    """

    def __init__(self, capacity: int, settings: Settings) -> None:
        self.capacity = capacity
        self.settings = settings
        self.shares = Shares()
        self._crowds = Crowds()
        self._held: dict[str, Job] = {}
        self._tenants: Counter[str] = Counter()
        self._order: list[str] = []  # the most deserving last; may name some that have left
        self._modest: list[str] = []  # the same without those whose tenant crowds
        self._ranked_s = -inf
        self._released = 0

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, job: Job, now_s: float, engines: Engines) -> str | None:
        """Let a request wait; returns the id of whoever has to go instead, who may be the same."""
        places = engines.places
        if self._held and not self.crowds(job.tenant, places, now_s) and self._only_crowds(places, now_s):
            self._order.append(job.id)
            self._modest.append(job.id)
        self._held[job.id] = job
        share = share_of(job.tenant, job.slo.name)
        self._tenants[share] += 1
        if self._tenants[share] == 1:
            self.shares.joins(share)
        if len(self._held) <= self.capacity:
            return None
        if self._stale(now_s):
            self._rank(now_s, engines)
        return next(id_ for id_ in self._order if id_ in self._held)

    def leave(self, id_: str) -> None:
        """A request waits no longer, if it did."""
        job = self._held.pop(id_, None)
        if job is not None:
            share = share_of(job.tenant, job.slo.name)
            self._tenants[share] -= 1
            if not self._tenants[share]:
                del self._tenants[share]

    def degrade(self, job: Job) -> None:
        """A request that waits goes on as another job of the same id and tenant."""
        if job.id in self._held:
            self._held[job.id] = job

    def release(self, now_s: float, engines: Engines, *, to_place: bool = True) -> Job | None:
        """Who is next, if anybody waits who may go; it waits no longer.

        Args:
            now_s: absolute.
            engines: that have room.
            to_place: whether that is more than room to stand behind their places, which is not for those who crowd.

        """
        if not self._held or (not to_place and self._only_crowds(engines.places, now_s)):
            return None
        if self._stale(now_s):
            self._rank(now_s, engines)
        line = self._order if to_place else self._modest
        job = self._aged(now_s) if to_place and (self._released + 1) % _AGED_EVERY == 0 else None
        while job is None and line:
            job = self._held.get(line.pop())
            if job and not to_place and self.crowds(job.tenant, engines.places, now_s):  # since the order was made
                job = None
        if job is not None:
            self._released += to_place
            self.leave(job.id)
        return job

    def begins(self, tenant: str, slo_class: str, tokens: float, now_s: float) -> None:
        """A request goes to an engine, waited or not; so much work is expected of it."""
        self._crowds.begins(tenant, now_s)
        self.shares.serve(share_of(tenant, slo_class), tokens, unopposed=not self._held)

    def ends(self, tenant: str, slo_class: str, more_tokens: float, now_s: float) -> None:
        """It has ended, and was so much more work than expected; less than nothing: less."""
        self._crowds.ends(tenant, now_s)
        self.shares.serve(share_of(tenant, slo_class), more_tokens, unopposed=not self._held)

    def crowds(self, tenant: str, places: int, now_s: float) -> bool:
        """Whether the tenant has so much in flight that no more of it may stand behind the engines' places."""
        return self._crowds.crowds(tenant, places, now_s)

    def _only_crowds(self, places: int, now_s: float) -> bool:
        """Whether nobody waits but those who crowd; others pass them."""
        tenants = {share.partition("/")[2] for share in self._tenants}
        return all(self.crowds(tenant, places, now_s) for tenant in tenants)

    def _aged(self, now_s: float) -> Job | None:
        oldest = min(self._held.values(), key=attrgetter("arrival_s"))
        return oldest if now_s - oldest.arrival_s > self.settings.patience_s else None

    def _stale(self, now_s: float) -> bool:
        """Whether the order is too old, or of nobody who still waits."""
        return now_s - self._ranked_s >= FRAME_S or not any(id_ in self._held for id_ in reversed(self._order))

    def _rank(self, now_s: float, engines: Engines) -> None:
        """Who loses most by waiting comes first; a class's turns go first to tenants that are not ahead of others."""
        held = list(self._held.values())
        order = [0] if len(held) == 1 else _by_loss(held, now_s, engines, self.settings)
        leads, burst = self.shares.leads(self._tenants), _BURST_S * engines.tokens_per_s
        turns: dict[str, list[tuple[bool, int]]] = {}
        for turn, i in enumerate(order):
            job = held[i]
            turns.setdefault(job.slo.name, []).append((leads[share_of(job.tenant, job.slo.name)] > burst, turn))
        line = list(order)
        for of_class in turns.values():
            for (_, turn), (_, whose) in zip(of_class, sorted(of_class), strict=True):
                line[turn] = order[whose]
        crowd = {tenant for tenant in {job.tenant for job in held} if self.crowds(tenant, engines.places, now_s)}
        self._order = [held[i].id for i in reversed(line)]
        self._modest = [held[i].id for i in reversed(line) if held[i].tenant not in crowd]
        self._ranked_s = now_s


def engines(replicas: Sequence[Replica]) -> Engines:
    """These replicas as one engine; of none, the least that there is."""
    if not replicas:
        return Engines()
    steps = [replica.step for replica in replicas if replica.step]
    places = [replica.places or _USUAL_PLACES for replica in replicas]
    speed = sum(replica.tokens_per_s for replica in replicas)
    return Engines(sum(places), speed, len(replicas), steps[0] if steps else StepTime())


def _by_loss(jobs: Sequence[Job], now_s: float, engines: Engines, settings: Settings) -> list[int]:
    """Indices of these, whoever loses most by waiting first."""
    view = outlook(Snapshot([Entry(job) for job in jobs], engines.places, 0, _together(engines), settings), now_s)
    order: list[int] = np.lexsort((view.arrival, view.slack_s, -view.loss_density)).tolist()
    return order


def _together(engines: Engines) -> StepTime:
    """Step times of the one engine that all replicas are: as long, with all their places and tokens in each."""
    share = 1.0 / max(engines.replicas, 1)
    step = engines.step
    return replace(
        step,
        per_sequence_s=step.per_sequence_s * share,
        per_prefill_token_s=step.per_prefill_token_s * share,
        per_context_token_s=step.per_context_token_s * share,
    )
