"""From the metadata that travels with a request to the facts that a policy sees; the same in every engine."""

from dataclasses import replace
from functools import lru_cache
from math import inf

from tempo_api.manifest import Pool
from tempo_api.wire import Facts
from tempo_core.slo import Pattern, SLOClass
from tempo_core.snapshot import Job


def job_from_facts(
    id_: str,
    facts: Facts,
    pool: Pool,
    *,
    arrival_s: float,
    prompt_tokens: int,
    max_tokens: int,
    priority: int = 0,
) -> tuple[Job, list[str]]:
    """The request's `Job`, and the names of the facts that could not be used.

    A request without facts is one of the pool's default class, its deadline counted from its arrival at the engine.

    Args:
        id_: unique among the engine's requests.
        facts: what the sidecar says of it.
        pool: what it is served by.
        arrival_s: at the engine, seconds since the epoch.
        prompt_tokens: as the engine counts them.
        max_tokens: the cap on its output.
        priority: the engine's own number.

    """
    bad: list[str] = []
    slo = pool.default if facts.slo_class is None else pool.classes.get(facts.slo_class)
    if slo is None:
        slo = pool.default
        bad.append("slo_class")
    if facts.degraded:
        slo = without_promise(slo)
    if slo.pattern is Pattern.LATENCY:
        bad += [name for name in ("ttft_s", "tbt_s") if getattr(facts, name) == 0.0]
        slo = with_targets(slo, facts.ttft_s or None, facts.tbt_s or None)
    arrival_s = arrival_s if facts.arrival_s is None else facts.arrival_s
    job = Job(
        id_,
        slo,
        arrival_s=arrival_s,
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        lengths=facts.lengths,
        deadline_s=_deadline_s(slo, facts, arrival_s),
        program=facts.program,
        program_arrival_s=facts.program_arrival_s,
        banked_gain=facts.banked_gain or 0.0,
        latest_s=None if facts.degraded else facts.latest_s,
        later_prompt_tokens=facts.later_prompt_tokens or 0.0,
        later_output_tokens=facts.later_output_tokens or 0.0,
        tools=bool(facts.tools),
        priority=priority,
        tenant=facts.tenant or "",
    )
    return job, bad


@lru_cache(maxsize=1024)
def with_targets(slo: SLOClass, ttft_s: float | None, tbt_s: float | None) -> SLOClass:
    """The class with the targets that a caller asked for; None leaves the class's own."""
    given = {name: value for name, value in (("ttft_s", ttft_s), ("tbt_s", tbt_s)) if value is not None}
    return replace(slo, objectives=replace(slo.objectives, **given)) if given else slo


@lru_cache(maxsize=1024)
def without_promise(slo: SLOClass) -> SLOClass:
    """The class as best effort."""
    return replace(slo, pattern=Pattern.BEST_EFFORT)


def _deadline_s(slo: SLOClass, facts: Facts, arrival_s: float) -> float:
    if slo.pattern not in {Pattern.DEADLINE, Pattern.COLLECTIVE}:
        return inf
    if facts.deadline_s is not None:
        return facts.deadline_s
    in_program = slo.pattern is Pattern.COLLECTIVE and facts.program_arrival_s is not None
    return (facts.program_arrival_s if in_program and facts.program_arrival_s else arrival_s) + slo.deadline_s()
