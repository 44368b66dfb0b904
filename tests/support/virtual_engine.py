"""A real vLLM scheduler and KV cache manager with a fake worker and a virtual clock: deterministic, no model.

`FakeWorker` believes nothing but the scheduler's output, as a real worker does, and its token is the position that it
computed. So a request that ends with 0, 1, 2, ... lost nothing and got nothing twice, however often it was preempted.
"""

import itertools
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from tempo_vllm.scheduler import TempoAsyncScheduler, TempoScheduler

BLOCK = 16

SCHEDULERS = {
    "tempo": TempoScheduler,
    "tempo-async": TempoAsyncScheduler,
    "vllm": Scheduler,
    "vllm-async": AsyncScheduler,
}


def make_scheduler(
    cls: type,
    model: Path,
    *,
    blocks: int = 2000,
    places: int = 16,
    step_tokens: int = 512,
    vllm_policy: str = "fcfs",
    pipelined: bool = False,
) -> Any:
    """A scheduler as vLLM's engine core makes one, `pipelined` with async scheduling."""
    init_none_hash(sha256)
    config = VllmConfig(
        model_config=ModelConfig(model=str(model), dtype="float32", max_model_len=2048, seed=0),
        scheduler_config=SchedulerConfig(
            max_num_seqs=places,
            max_num_batched_tokens=step_tokens,
            max_model_len=2048,
            is_encoder_decoder=False,
            policy=vllm_policy,
            enable_chunked_prefill=True,
        ),
        cache_config=CacheConfig(block_size=BLOCK, gpu_memory_utilization=0.5, enable_prefix_caching=True),
        device_config=DeviceConfig("cpu"),
    )
    config.scheduler_config.async_scheduling = pipelined  # vLLM turns it off where the platform is a CPU
    config.cache_config.num_gpu_blocks = blocks
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
    return cls(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(
            num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
        ),
        structured_output_manager=StructuredOutputManager(config),
        block_size=BLOCK,
        hash_block_size=BLOCK,
        log_stats=True,
    )


_salt = itertools.count()


def make_request(
    name: str,
    prompt: int = 32,
    output: int = 8,
    *,
    arrival_s: float = 0.0,
    priority: int = 0,
    structured: bool = False,
    **xargs: Any,
) -> Request:
    """A request of so many tokens, with metadata `xargs`; no two share a prefix."""
    salt = next(_salt)
    return Request(
        request_id=name,
        prompt_token_ids=[(salt * 7919 + k) % 100_003 for k in range(prompt)],
        sampling_params=SamplingParams(
            max_tokens=output,
            ignore_eos=True,
            extra_args=xargs or None,
            structured_outputs=StructuredOutputsParams(regex="a*") if structured else None,
        ),
        pooling_params=None,
        arrival_time=arrival_s or 1e-9,
        priority=priority,
        block_hasher=get_request_block_hasher(BLOCK, sha256),
    )


class FakeWorker:
    """Computes what it is told to, and checks that it could."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}  # tokens of each request that have been sent or sampled
        self._prompt: dict[str, int] = {}

    def run(self, step: Any) -> ModelRunnerOutput:
        for id_ in step.finished_req_ids:
            self._known.pop(id_, None)
        computed = {new.req_id: new.num_computed_tokens for new in step.scheduled_new_reqs}
        for new in step.scheduled_new_reqs:
            self._prompt[new.req_id] = self._known[new.req_id] = len(new.prompt_token_ids)
        cached = step.scheduled_cached_reqs
        computed |= dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        # vLLM's worker has dropped the state of a request that comes back, and needs all of its tokens.
        assert cached.resumed_req_ids <= cached.all_token_ids.keys()
        sampled = [self._sample(id_, computed[id_] + count) for id_, count in step.num_scheduled_tokens.items()]
        ids = list(step.num_scheduled_tokens)
        return ModelRunnerOutput(
            req_ids=ids,
            req_id_to_index={id_: index for index, id_ in enumerate(ids)},
            sampled_token_ids=sampled,
            logprobs=None,
            prompt_logprobs_dict={},
            pooler_output=[],
        )

    def _sample(self, id_: str, end: int) -> list[int]:
        assert end <= self._known[id_], f"{id_}: told to compute {end} tokens of {self._known[id_]}"
        if end < self._known[id_]:
            return []
        self._known[id_] += 1
        return [end - self._prompt[id_]]


@dataclass
class VirtualEngine:
    """Runs a scheduler as the engine core does; `depth` 2 is a pipelined engine.

    `cost` is seconds for a step of so many tokens and sequences; the worker takes one step after the other.
    """

    scheduler: Any
    depth: int = 1
    cost: Callable[[int, int], float] = lambda tokens, _: 0.004 + 0.0002 * tokens
    now_s: float = 1000.0
    steps: int = 0
    tokens: dict[str, list[int]] = field(default_factory=dict)
    first_s: dict[str, float] = field(default_factory=dict)
    done_s: dict[str, float] = field(default_factory=dict)
    served: list[dict[str, int]] = field(default_factory=list)
    """Tokens scheduled for each request, step by step."""
    preempted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._worker = FakeWorker()
        self._in_flight: deque[tuple[Any, ModelRunnerOutput]] = deque()
        tempo = getattr(self.scheduler, "tempo", None)
        if tempo is not None:
            tempo.wall = tempo.monotonic = lambda: self.now_s

    def add(self, *requests: Request) -> None:
        for request in requests:
            self.scheduler.add_request(request)

    def abort(self, *ids: str) -> None:
        self.scheduler.finish_requests(list(ids), RequestStatus.FINISHED_ABORTED)

    def step(self) -> None:
        """Schedule once, and take back what the pipeline is deep enough for."""
        output = self.scheduler.schedule()
        self.steps += 1
        self.served.append(dict(output.num_scheduled_tokens))
        self.preempted += sorted(output.preempted_req_ids or ())
        self._in_flight.append((output, self._worker.run(output)))
        while len(self._in_flight) >= self.depth or (self._in_flight and not output.total_num_scheduled_tokens):
            self._take_back()

    def run(self, most_steps: int = 20_000) -> None:
        """Until nothing is left."""
        while self.scheduler.has_requests() or self._in_flight:
            assert self.steps < most_steps, "the engine never comes to an end"
            if self.scheduler.has_requests():
                self.step()
            else:
                self._take_back()

    def run_steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def _take_back(self) -> None:
        step, computed = self._in_flight.popleft()
        self.now_s += self.cost(step.total_num_scheduled_tokens, len(step.num_scheduled_tokens))
        for group in self.scheduler.update_from_output(step, computed).values():
            for output in group.outputs:
                if output.new_token_ids:
                    self.tokens.setdefault(output.request_id, []).extend(output.new_token_ids)
                    self.first_s.setdefault(output.request_id, self.now_s)
                if output.finish_reason is not None:
                    assert output.request_id not in self.done_s, "ended twice"
                    self.done_s[output.request_id] = self.now_s
