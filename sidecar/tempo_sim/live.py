"""The simulated engine on a real clock: the same steps, each taking the time that it is simulated to take."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from tempo_api.jobs import job_from_facts
from tempo_api.manifest import Pool
from tempo_api.wire import decode_facts
from tempo_core.policies import POLICIES
from tempo_core.snapshot import Plan, Snapshot
from tempo_sim.batch import Live
from tempo_sim.engine import Replica
from tempo_sim.kv import Holding
from tempo_sim.profiles import EngineProfile

_LAG_S: Final = 0.25
"""An engine that this process can't keep up with starts anew from the present, so that it does not race ahead."""


class LiveEngine:
    """One engine, for one event loop; `run` is its heart, `generate` its door.

    Args:
        profile: what steps cost.
        pool: says what to serve and by which policy, now.
        clock: absolute seconds (epoch), the clock of arrivals and deadlines.

    """

    def __init__(
        self, profile: EngineProfile, pool: Callable[[], Pool], clock: Callable[[], float] = time.time
    ) -> None:
        self.profile = profile
        self._pool = pool
        self._clock = clock
        self._count = 0
        self._malformed = 0
        self._arrived = asyncio.Event()
        self._more: dict[Live, asyncio.Event] = {}
        scheduler = pool().spec.scheduler
        self.replica = Replica(profile, self._plan, pool().settings, frame_steps=scheduler.frame_steps)

    async def run(self) -> None:
        """Take steps as long as there is something to do, until cancelled."""
        replica = self.replica
        while True:
            while replica.busy:
                ended = replica.advance(replica.now_s)  # one step
                behind_s = self._clock() - replica.now_s
                await asyncio.sleep(max(-behind_s, 0.0))
                if behind_s > _LAG_S:
                    replica.now_s = self._clock()
                for live in (*replica.running, *ended):
                    if more := self._more.get(live):  # unless its client left while the step took its time
                        more.set()
            self._arrived.clear()
            await self._arrived.wait()

    async def generate(
        self, xargs: Mapping[str, Any], *, prompt_tokens: int, output_tokens: int, max_tokens: int, priority: int = 0
    ) -> AsyncGenerator[int]:
        """Serve a request; yields how many tokens came since the last time, until it has `output_tokens`.

        Args:
            xargs: the metadata that the sidecar sent.
            prompt_tokens: length of the prompt.
            output_tokens: after which it ends; the policy does not know.
            max_tokens: the cap, which it does.
            priority: vLLM's own number.

        """
        now_s = self._clock()
        self._count += 1
        id_ = f"{self._count}"
        facts, bad = decode_facts(xargs)
        job, unusable = job_from_facts(
            id_,
            facts,
            self._pool(),
            arrival_s=now_s,
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            priority=priority,
        )
        self._malformed += len(bad) + len(unusable)
        live = Live(job, output_tokens, Holding(id_, ()))
        more = self._more[live] = asyncio.Event()
        self.replica.submit(live, now_s)
        self._arrived.set()
        try:
            given = 0
            while given < output_tokens:
                await more.wait()
                more.clear()
                came = len(live.stamps)
                if came > given:
                    yield came - given
                given = came
        finally:
            self.replica.withdraw(live)
            del self._more[live]

    def status(self) -> dict[str, Any]:
        """What the sidecar reads of a scheduler in its engine."""
        counts, replica = self.replica.counts, self.replica
        return {
            "state": "active",
            "policy": self._pool().spec.scheduler.policy,
            "steps": counts.steps,
            "passes": counts.passes,
            "preemptions": counts.planned_preemptions,
            "malformed": self._malformed,
            "running": len(replica.running),
            "waiting": len(replica.waiting),
            "places": self.profile.max_places,
            "cache_used": round(replica.cache.used / replica.cache.blocks, 3),
            "step_time": asdict(replica.step_time),
        }

    def _plan(self, snapshot: Snapshot, now_s: float) -> Plan:
        """The pool's policy, which may have changed since the last pass."""
        pool = self._pool()
        return POLICIES[pool.spec.scheduler.policy](replace(snapshot, settings=pool.settings), now_s)
