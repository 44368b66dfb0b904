"""Everything of the plug-in that needs no vLLM: facts in, plan out, and the books."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from math import nan
from typing import Any, Final

from tempo_core.policies import POLICIES, Policy
from tempo_core.snapshot import Entry, Job, Plan, Reason, Snapshot
from tempo_core.tenants import TenantCounters
from tempo_vllm.breaker import Breaker
from tempo_vllm.jobs import EngineRequest, job_from
from tempo_vllm.pools import PoolFile
from tempo_vllm.steps import Pacer, StepMeter

_log = logging.getLogger(f"vllm.{__name__}")

_WARN_EVERY_S: Final = 60.0
_FOUND: Final = 8_192
"""Tokens that a pass finds in the engine's cache before it leaves the rest to the next: half a millisecond."""
_LOOK: Final = 64
"""What a look that finds nothing takes, in tokens that are found."""


class Adapter:
    """Knows the live requests and asks the policy about them.

    Args:
        pools: where classes, settings and the policy's name come from.
        policies: what the name means.

    Attributes:
        wall: seconds since the epoch, the clock of arrivals and deadlines.
        monotonic: seconds of a clock that never jumps, for durations.
        breaker: where failures end up.
        meter: learns how long steps take.
        pacer: says when `plan` is due.
        cached: how many tokens of a waiting request the engine would find in its cache.

    """

    def __init__(self, pools: PoolFile, policies: Mapping[str, Policy] = POLICIES) -> None:
        self.pools = pools
        self.policies = policies
        self.wall: Callable[[], float] = time.time
        self.monotonic: Callable[[], float] = time.monotonic
        self.breaker = Breaker()
        self.meter = StepMeter()
        self.pacer = Pacer()
        self.cached: Callable[[Any], int] = _none
        self._jobs: dict[str, Job] = {}
        self._requests: dict[str, EngineRequest] = {}  # vLLM announces an end once it has forgotten the request
        self._tenants = TenantCounters()
        self._first_token_s: dict[str, float] = {}
        self._resting: dict[str, Entry] = {}  # entries of waiting requests, the longest not looked up first
        self._no_token_yet: set[str] = set()  # admitted, first token not seen
        self._steps = 0
        self._passes = 0
        self._pass_seconds = 0.0
        self._preemptions = 0
        self._malformed: Counter[str] = Counter()
        self._warned_s = -_WARN_EVERY_S
        self._reasons = dict.fromkeys(Reason, 0)

    def __len__(self) -> int:
        return len(self._jobs)

    def arrived(self, request: EngineRequest) -> Entry:
        """A request joined the queue."""
        now_s = self.wall()
        job, bad = job_from(request, self.pools.pool)
        if bad:
            self._note_malformed(bad, now_s)
        self._jobs[job.id], self._requests[job.id] = job, request
        self.pacer.changed()
        return self._rest(request, now_s)

    def finished(self, ids: Collection[str]) -> None:
        """These requests ended, whichever way; whoever is not known is not missed."""
        for id_ in ids:
            job, request = self._jobs.pop(id_, None), self._requests.pop(id_, None)
            if job and request and self.pools.pool.settings.fairness:
                computed = request.num_computed_tokens
                self._tenants.end(Entry(job, request.num_output_tokens, computed, computed > 0))
            self._resting.pop(id_, None)
            self._first_token_s.pop(id_, None)
        if ids:
            self._no_token_yet.difference_update(ids)
            self.pacer.changed()

    def admitted(self, ids: Iterable[str]) -> None:
        """The step at hand is the first of these requests."""
        self._no_token_yet.update(ids)

    def evicted(self, ids: Iterable[str]) -> None:
        """These requests lost their places."""
        for id_ in ids:
            self._resting.pop(id_, None)
            self.pacer.changed()

    def tokens_came(self, requests: Mapping[str, EngineRequest]) -> None:
        """Stamp the first tokens among `requests`, all live ones by id."""
        if not self._no_token_yet:
            return
        now_s = self.wall()
        for id_ in tuple(self._no_token_yet):
            request = requests.get(id_)
            if request is not None and not request.num_output_tokens:
                continue
            self._no_token_yet.discard(id_)
            if id_ in self._jobs:
                self._first_token_s.setdefault(id_, now_s)

    def pass_due(self) -> bool:
        """Count a step; whether it should begin with `plan`."""
        self._steps += 1
        return self.pacer.due(self.monotonic(), self.pools.pool.spec.scheduler.frame_steps)

    def plan(
        self, running: Iterable[EngineRequest], waiting: Iterable[EngineRequest], places: int, step_tokens: int
    ) -> Plan:
        """Ask the policy about the requests that hold one of the `places` and those that wait for one.

        Raises:
            Exception: whatever the policy raises.

        """
        began_s, now_s, pool = self.monotonic(), self.wall(), self.pools.pool
        entries = [self._run(request) for request in running]
        self._look_up()
        resting = self._resting.get
        entries += [resting(request.request_id) or self._rest(request, now_s) for request in waiting]
        served = self._tenants.served(entries) if pool.settings.fairness else {}
        snapshot = Snapshot(entries, places, step_tokens, self.meter.model, pool.settings, served=served)
        plan = self.policies[pool.spec.scheduler.policy](snapshot, now_s)
        for reason, count in Counter(plan.reasons.values()).items():
            self._reasons[reason] += count
        ended_s = self.monotonic()
        self.pacer.passed(began_s, ended_s)
        self._passes += 1
        self._pass_seconds += ended_s - began_s
        return plan

    def preempted(self) -> None:
        """A running request was taken off the batch because the plan said so."""
        self._preemptions += 1

    def status(self) -> dict[str, Any]:
        """What the sidecar reads; called from another thread, so it copies and changes nothing."""
        return {
            "state": "fallback" if self.breaker.is_open else "active",
            "reason": self.breaker.reason,
            "policy": self.pools.pool.spec.scheduler.policy,
            "steps": self._steps,
            "passes": self._passes,
            "pass_seconds_mean": self._pass_seconds / max(self._passes, 1),
            "preemptions": self._preemptions,
            "malformed": sum(tuple(self._malformed.values())),
            "failures": self.breaker.failures,
            "step_time": asdict(self.meter.model),
            "reasons": dict(self._reasons),
        }

    def _run(self, request: EngineRequest) -> Entry:
        id_ = request.request_id
        if id_ not in self._jobs:  # its end was announced, but a request of the same name came at once
            self.arrived(request)
        self._resting.pop(id_, None)
        first_token_s = self._first_token_s.get(id_, nan)
        return Entry(self._jobs[id_], request.num_output_tokens, request.num_computed_tokens, True, first_token_s)

    def _rest(self, request: EngineRequest, now_s: float) -> Entry:
        id_ = request.request_id
        if id_ not in self._jobs:
            return self.arrived(request)
        entry = self._resting[id_] = Entry(
            self._jobs[id_],
            request.num_output_tokens,
            self._found(request),
            first_token_s=self._first_token_s.get(id_, nan),
            waiting_since_s=now_s,
        )
        return entry

    def _found(self, request: EngineRequest) -> int:
        """Tokens of a waiting request that need no computing."""
        return max(request.num_computed_tokens, self.cached(request))

    def _look_up(self) -> None:
        """Look again at what the cache has of those who wait, some at each pass: it fills and forgets meanwhile."""
        tokens = 0
        for id_ in tuple(self._resting):
            request = self._requests[id_]
            found = self._found(request)
            self._resting[id_] = self._resting.pop(id_)._replace(computed=found)
            tokens += found + _LOOK
            if tokens >= _FOUND:
                return

    def _note_malformed(self, names: list[str], now_s: float) -> None:
        self._malformed.update(names)
        if now_s - self._warned_s >= _WARN_EVERY_S:
            self._warned_s = now_s
            counts = ", ".join(f"{name} {count}" for name, count in self._malformed.most_common(8))
            _log.warning("Tempo ignored scheduling metadata that it can't use; so far: %s", counts)


def _none(_request: Any) -> int:
    return 0
