"""From what vLLM knows of a request to the facts that a policy sees."""

from dataclasses import replace
from functools import lru_cache
from math import inf
from typing import Any, Protocol

from tempo_api.manifest import Pool
from tempo_api.wire import Facts, decode_facts
from tempo_core.slo import Pattern, SLOClass
from tempo_core.snapshot import Job


class EngineRequest(Protocol):
    """All that is read of `vllm.v1.request.Request`."""

    request_id: str
    arrival_time: float
    """Absolute, seconds since the epoch."""
    num_prompt_tokens: int
    max_tokens: int
    priority: int
    sampling_params: Any
    num_output_tokens: int
    num_computed_tokens: int


def job_from(request: EngineRequest, pool: Pool) -> tuple[Job, list[str]]:
    """The request's `Job`, and the names of its metadata that could not be used.

    A request without metadata is one of the pool's default class, its deadline counted from its arrival at the engine.
    """
    facts, bad = decode_facts(getattr(request.sampling_params, "extra_args", None))
    slo = pool.default if facts.slo_class is None else pool.classes.get(facts.slo_class)
    if slo is None:
        slo = pool.default
        bad.append("slo_class")
    if slo.pattern is Pattern.LATENCY:
        bad += [name for name in ("ttft_s", "tbt_s") if getattr(facts, name) == 0.0]
        slo = with_targets(slo, facts.ttft_s or None, facts.tbt_s or None)
    arrival_s = request.arrival_time if facts.arrival_s is None else facts.arrival_s
    job = Job(
        request.request_id,
        slo,
        arrival_s=arrival_s,
        prompt_tokens=request.num_prompt_tokens,
        max_tokens=request.max_tokens,
        lengths=facts.lengths,
        deadline_s=_deadline_s(slo, facts, arrival_s),
        program=facts.program,
        program_arrival_s=facts.program_arrival_s,
        banked_gain=facts.banked_gain or 0.0,
        priority=request.priority,
        tenant=facts.tenant or "",
    )
    return job, bad


@lru_cache(maxsize=1024)
def with_targets(slo: SLOClass, ttft_s: float | None, tbt_s: float | None) -> SLOClass:
    """The class with the targets that a caller asked for; None leaves the class's own."""
    given = {name: value for name, value in (("ttft_s", ttft_s), ("tbt_s", tbt_s)) if value is not None}
    return replace(slo, objectives=replace(slo.objectives, **given)) if given else slo


def _deadline_s(slo: SLOClass, facts: Facts, arrival_s: float) -> float:
    if slo.pattern not in {Pattern.DEADLINE, Pattern.COLLECTIVE}:
        return inf
    if facts.deadline_s is not None:
        return facts.deadline_s
    in_program = slo.pattern is Pattern.COLLECTIVE and facts.program_arrival_s is not None
    return (facts.program_arrival_s if in_program and facts.program_arrival_s else arrival_s) + slo.deadline_s()
