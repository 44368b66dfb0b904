"""What is read of vLLM's request."""

from typing import Any, Protocol

from tempo_api.jobs import job_from_facts, with_targets
from tempo_api.manifest import Pool
from tempo_api.wire import decode_facts
from tempo_core.snapshot import Job

__all__ = ["EngineRequest", "job_from", "with_targets"]


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
    """The request's `Job`, and the names of its metadata that could not be used."""
    facts, bad = decode_facts(getattr(request.sampling_params, "extra_args", None))
    job, unusable = job_from_facts(
        request.request_id,
        facts,
        pool,
        arrival_s=request.arrival_time,
        prompt_tokens=request.num_prompt_tokens,
        max_tokens=request.max_tokens,
        priority=request.priority,
    )
    return job, bad + unusable
