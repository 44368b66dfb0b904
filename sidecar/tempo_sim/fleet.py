"""Units on their way through a router, the replicas and back, in virtual time.

Events are calls that arrive and calls that end, in order of time. A replica runs on its own clock, ahead of the others
only as far as nothing that they do could concern it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Final

from tempo_core.graphs import Forecast
from tempo_core.lengths import UsualLengths, exponential_grid
from tempo_core.prefixes import PrefixTable
from tempo_core.programs import Call, Programs
from tempo_core.routing import Demand, work_tokens
from tempo_core.routing import Replica as Candidate
from tempo_core.slo import Pattern, SLOClass
from tempo_core.snapshot import Job, Settings
from tempo_sim.batch import Live
from tempo_sim.engine import Replica
from tempo_sim.kv import Holding
from tempo_sim.lengths import Grid, LengthModel, answer_tokens
from tempo_sim.profiles import EngineProfile
from tempo_sim.programs import GraphModel
from tempo_sim.routers import DIRECT, ROUTERS, Offer, Router
from tempo_sim.units import CallResult, UnitResult, call_outcome, judge
from tempo_sim.workload import SimCall, SimUnit

_LAX_S: Final = 3600.0
"""For vLLM's own `priority`, what has no deadline is due after this time, as in the sidecar."""
_REMEMBERED: Final = 50_000
"""Blocks that a router remembers to have sent to a replica."""
_Sent = dict[str, tuple[Live, float]]
"""What the router has sent to one replica: calls by id, and their work, in output tokens, as it was expected."""
_ENDED, _ARRIVES = 0, 1  # what ends goes before what arrives at the same time


@dataclass(slots=True, eq=False)
class _Unit:
    """A unit on its way."""

    unit: SimUnit
    slo: SLOClass
    calls: list[tuple[int, SimCall]]
    """All calls, with their stages."""
    arrival_s: float
    begun: int = 0
    live: int = 0
    """Calls of the stage at hand that have not ended."""
    ended: list[CallResult] = field(default_factory=list)
    result: UnitResult | None = None

    def job_id(self, call: int) -> str:
        return self.unit.id if len(self.calls) == 1 else f"{self.unit.id}/{call}"


@dataclass(slots=True, eq=False)
class _Call:
    """A call between its arrival and its end."""

    unit: int
    call: int
    live: Live
    program: Call | None
    offer: Offer
    replica: int = -1
    """Where it was sent; -1 while the router holds it."""


class Fleet:
    """Serves a workload on these engines, all of one profile."""

    def __init__(
        self,
        workload: Sequence[SimUnit],
        classes: Mapping[str, SLOClass],
        engines: Sequence[Replica],
        profile: EngineProfile,
        lengths: LengthModel,
        block_tokens: int,
        graphs: GraphModel | None = None,
        router: Router | None = None,
    ) -> None:
        self._units = [_tracked(unit, classes[unit.slo_class]) for unit in workload]
        self._engines = engines
        self._profile = profile
        self._lengths = lengths
        self._usual = UsualLengths()
        self._blocks_in_one = profile.block_size // block_tokens
        self._graphs = graphs
        self._programs = Programs(idle_s=inf, capacity=len(workload))
        # (time, what, unit, call): no two are alike, so their order does not depend on how they came about.
        self._events: list[tuple[float, int, int, int]] = []
        self._calls: dict[str, _Call] = {}
        self._sent: list[_Sent] = [{} for _ in engines]
        self._prefixes = PrefixTable(_REMEMBERED * len(engines))
        self._line, self._pick = router or ROUTERS[DIRECT].make(Settings())

    def serve(self) -> tuple[UnitResult, ...]:
        """Run until the last call has ended, once; the units are in the order of the workload."""
        for index, state in enumerate(self._units):
            self._open_stage(index, 0, state.unit.at_s)
        while True:
            busy = [engine for engine in self._engines if engine.busy]
            first = min(busy, key=lambda engine: engine.now_s, default=None)
            if self._events and (first is None or self._events[0][0] <= first.now_s):
                at_s, what, unit, call = heappop(self._events)
                (self._end if what == _ENDED else self._arrive)(at_s, unit, call)
                self._send(at_s)
            elif first is not None:
                self._advance(first, busy)
            else:
                return tuple(state.result for state in self._units if state.result is not None)

    def _advance(self, engine: Replica, busy: Sequence[Replica]) -> None:
        """Run a replica up to the next arrival: one that is known, or one that another's end may bring about."""
        until_s = min((other.quiet_until_s for other in busy if other is not engine), default=inf)
        if self._events:
            until_s = min(until_s, self._events[0][0])
        for live in engine.advance(until_s):
            call = self._calls[live.job.id]
            heappush(self._events, (live.stamps[-1], _ENDED, call.unit, call.call))

    def _open_stage(self, unit: int, stage: int, now_s: float) -> None:
        state = self._units[unit]
        for index, (of, call) in enumerate(state.calls):
            if of == stage:
                state.live += 1
                heappush(self._events, (now_s + call.delay_s, _ARRIVES, unit, index))

    def _arrive(self, now_s: float, unit: int, index: int) -> None:
        state = self._units[unit]
        stage, call = state.calls[index]
        state.begun += 1
        program = forecast = None
        if state.slo.pattern is Pattern.COLLECTIVE:
            last = state.begun == len(state.calls)
            program = self._programs.begin(state.unit.id, state.slo, now_s, stage=stage, final=last)
            if self._graphs:
                forecast = self._graphs.begin(program, state.slo, call.prompt_tokens, now_s, final=last)
                program = program._replace(deadline_s=forecast.due_s)
        grid = self._lengths.predict(state.slo.name, call)
        job = _job(state, index, now_s, grid, program, forecast)
        live = Live(job, answer_tokens(call), Holding(job.id, self._prefix(call)))
        # The router knows no more of an answer's length than what is usual for its tenant and class.
        tokens = min(self._usual.usual(state.slo.name, state.unit.tenant), call.max_tokens)
        seen = exponential_grid(tokens, call.max_tokens)
        demand = _demand(job, tokens, now_s)
        offer = Offer(_job(state, index, now_s, seen, program, forecast), demand, live.holding.prefix)
        self._calls[job.id] = _Call(unit, index, live, program, offer)
        self._line.join(offer, now_s)

    def _send(self, now_s: float) -> None:
        """Send on as many as the router lets go."""
        while offer := self._line.next(now_s, self._look):
            call, job = self._calls[offer.job.id], offer.job
            call.replica = 0 if len(self._engines) == 1 else int(self._pick(offer, self._look(offer)).name)
            sent = self._sent[call.replica]
            sent[job.id] = call.live, work_tokens(job.prompt_tokens, offer.demand.output_tokens)
            self._prefixes.note(offer.blocks, str(call.replica))
            self._engines[call.replica].submit(call.live, now_s)

    def _look(self, offer: Offer) -> list[Candidate]:
        profile, size, matched = self._profile, self._profile.block_size, self._prefixes.matched(offer.blocks)
        return [
            Candidate(
                str(index),
                ready=True,
                outstanding_tokens=sum(max(work - len(live.stamps), 0.0) for live, work in sent.values()),
                tokens_per_s=profile.tokens_per_s,
                in_flight=len(sent),
                places=profile.max_places,
                waiting=len(engine.waiting),
                cache_used=1.0 - engine.cache.available / profile.kv_blocks,
                prefix_tokens=matched.get(str(index), 0) * size,
                step=engine.step_time,
                ranks=engine.ranks,
            )
            for index, (engine, sent) in enumerate(zip(self._engines, self._sent, strict=True))
        ]

    def _end(self, now_s: float, unit: int, index: int) -> None:
        state = self._units[unit]
        stage, call = state.calls[index]
        done = self._calls.pop(state.job_id(index))
        del self._sent[done.replica][done.live.job.id]
        self._line.ended(done.offer, len(done.live.stamps), now_s)
        ended = CallResult(done.live.job.arrival_s, call.prompt_tokens, stage, done.live.stamps)
        if done.program is not None:
            outcome = call_outcome(state.slo, ended.arrival_s, ended, done.program.deadline_s)
            self._programs.end(done.program, outcome, now_s)
            if self._graphs:
                self._graphs.end(done.program, outcome, now_s)
        self._lengths.learn(state.slo.name, call)
        self._usual.learn(state.slo.name, state.unit.tenant, len(done.live.stamps))
        state.ended.append(ended)
        state.live -= 1
        if state.live:
            return
        if len(state.ended) < len(state.calls):
            self._open_stage(unit, stage + 1, now_s)
        else:
            state.result = judge(state.unit.id, state.slo, state.arrival_s, state.ended)
            state.ended = []

    def _prefix(self, call: SimCall) -> tuple[int, ...]:
        """Identities of the engine's own blocks: each goes by the last that the workload has in it."""
        per = self._blocks_in_one
        return call.prefix[per - 1 :: per][: call.prompt_tokens // self._profile.block_size]


def _tracked(unit: SimUnit, slo: SLOClass) -> _Unit:
    calls = [(stage, call) for stage, calls in enumerate(unit.stages) for call in calls]
    return _Unit(unit, slo, calls, unit.at_s + min(call.delay_s for call in unit.stages[0]))


def _job(state: _Unit, index: int, now_s: float, grid: Grid, program: Call | None, forecast: Forecast | None) -> Job:
    """What the engine is told of a call that arrives now."""
    _, call = state.calls[index]
    slo = state.slo
    deadline_s = now_s + slo.deadline_s() if program is None else program.deadline_s
    due_s = now_s + slo.objectives.ttft_s if slo.pattern is Pattern.LATENCY else deadline_s
    return Job(
        state.job_id(index),
        slo,
        arrival_s=now_s,
        prompt_tokens=call.prompt_tokens,
        max_tokens=call.max_tokens,
        lengths=grid,
        deadline_s=deadline_s,
        program=program and program.program,
        program_arrival_s=program and program.program_arrival_s,
        banked_gain=program.banked_gain if program else 0.0,
        latest_s=forecast.latest_s if forecast else None,
        later_prompt_tokens=forecast.prompt_tokens_left if forecast else 0.0,
        later_output_tokens=forecast.output_tokens_left if forecast else 0.0,
        tools=forecast.tools if forecast else False,
        priority=round((now_s + _LAX_S if due_s == inf else due_s) * 1e3),
        tenant=state.unit.tenant,
        attained_tokens=sum(len(call.stamps) for call in state.ended),
        critical_tokens=sum(_longest_by_stage(state.ended).values()),
    )


def _demand(job: Job, output_tokens: float, now_s: float) -> Demand:
    began_s = job.program_arrival_s
    return Demand(job.slo, job.prompt_tokens, output_tokens, now_s - began_s, job.deadline_s - began_s)


def _longest_by_stage(calls: Sequence[CallResult]) -> dict[int, int]:
    """Output tokens of each stage's longest call; together, of the longest chain."""
    longest: dict[int, int] = {}
    for call in calls:
        longest[call.stage] = max(longest.get(call.stage, 0), len(call.stamps))
    return longest
