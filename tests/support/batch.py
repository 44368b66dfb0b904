"""A batching engine in virtual time, for properties of policies: places, a token budget, chunked prefill, recompute.

It does what vLLM's scheduler does with an order, without memory limits; the policy is called before every step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import nan

from tempo_core.gain import Outcome, RequestLedger
from tempo_core.snapshot import Entry, Job, Plan, Settings, Snapshot
from tempo_core.steptime import StepTime

Policy = Callable[[Snapshot, float], Plan]
STEP = StepTime(0.02, 0.001, 0.0005, 0.0)
SETTINGS = Settings()


@dataclass(slots=True)
class Live:
    job: Job
    output: int
    ledger: RequestLedger
    generated: int = 0
    computed: int = 0
    first_token_s: float = nan
    waiting_since_s: float = nan

    @property
    def to_compute(self) -> int:
        return self.job.prompt_tokens + self.generated - self.computed


@dataclass(slots=True)
class Result:
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    started_s: dict[str, float] = field(default_factory=dict)
    preemptions: int = 0
    end_s: float = 0.0


def serve(
    policy: Policy,
    arrivals: Sequence[tuple[Job, int]],
    *,
    places: int = 8,
    budget: int = 128,
    step: StepTime = STEP,
    settings: Settings = SETTINGS,
    max_steps: int = 200_000,
) -> Result:
    """Serve (job, true output length) pairs to their end and return how each fared."""
    todo = sorted(arrivals, key=lambda pair: pair[0].arrival_s)
    waiting: list[Live] = []
    running: list[Live] = []
    result = Result()
    now = 0.0
    for _ in range(max_steps):
        while todo and todo[0][0].arrival_s <= now:
            job, output = todo.pop(0)
            waiting.append(Live(job, output, RequestLedger(job.slo, job.arrival_s), waiting_since_s=now))
        if not waiting and not running:
            if not todo:
                result.end_s = now
                return result
            now = todo[0][0].arrival_s
            continue
        plan = policy(_snapshot(running, waiting, places, budget, step, settings), now)
        _apply(plan, running, waiting, now, result)
        scheduled = _schedule(plan, running, waiting, now, result)
        prefill = sum(n for live, n in scheduled if not (live.generated and n == 1))
        now += step.seconds(sum(1 for live, n in scheduled if live.generated and n == 1), prefill)
        for live, tokens in scheduled:
            live.computed += tokens
            if live.to_compute == 0:
                _emit(live, now, running, result)
    raise AssertionError(f"{len(waiting) + len(running)} requests are not served after {max_steps} steps")


def _snapshot(running, waiting, places, budget, step, settings) -> Snapshot:
    entries = [
        Entry(r.job, r.generated, r.computed, is_running, r.first_token_s, r.waiting_since_s)
        for group, is_running in ((running, True), (waiting, False))
        for r in group
    ]
    return Snapshot(entries, places, budget, step, settings)


def _apply(plan: Plan, running: list[Live], waiting: list[Live], now: float, result: Result) -> None:
    assert sorted(plan.order) == sorted(r.job.id for r in (*running, *waiting)), "a plan orders every entry once"
    assert set(plan.preempt) <= {r.job.id for r in running}, "only what runs is preempted"
    assert len(set(plan.preempt)) == len(plan.preempt)
    for live in [r for r in running if r.job.id in plan.preempt]:
        running.remove(live)
        live.computed, live.waiting_since_s = 0, now
        waiting.append(live)
        result.preemptions += 1
    rank = {request: place for place, request in enumerate(plan.order)}
    running.sort(key=lambda r: rank[r.job.id])
    waiting.sort(key=lambda r: rank[r.job.id])


def _schedule(
    plan: Plan, running: list[Live], waiting: list[Live], now: float, result: Result
) -> list[tuple[Live, int]]:
    left, scheduled = plan.token_budget, []
    for live in running:
        if tokens := min(live.to_compute, left):
            scheduled.append((live, tokens))
            left -= tokens
    while waiting and left and len(running) < plan.max_running:
        live = waiting.pop(0)
        running.append(live)
        result.started_s.setdefault(live.job.id, now)
        tokens = min(live.to_compute, left)
        scheduled.append((live, tokens))
        left -= tokens
    assert scheduled, "a step with requests at hand always schedules some"
    return scheduled


def _emit(live: Live, now: float, running: list[Live], result: Result) -> None:
    live.generated += 1
    if live.generated == 1:
        live.first_token_s = now
    live.ledger.tokens(now, 1)
    if live.generated == live.output:
        running.remove(live)
        result.outcomes[live.job.id] = live.ledger.finish(now, live.job.prompt_tokens)
