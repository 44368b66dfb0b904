"""A whole real vLLM engine in one process, stepped by hand: `python inproc_engine.py MODEL POOL SCENARIO [async]`.

A process of its own, because vLLM keeps what a second engine would trip over. Prints one line of JSON.
"""

import itertools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_LOGGING_LEVEL="WARNING",
    VLLM_NO_USAGE_STATS="1",
)

from vllm.platforms.cpu import CpuPlatform
from vllm.v1.engine.llm_engine import LLMEngine

from tempo_core.snapshot import Plan, Snapshot
from vllm import EngineArgs, SamplingParams


def pipeline_the_cpu() -> None:
    """Turn async scheduling on: vLLM turns it off on the CPU, where it gains nothing, but works."""
    original = CpuPlatform.check_and_update_config.__func__

    def check(cls: Any, config: Any) -> None:
        original(cls, config)
        config.scheduler_config.async_scheduling = True

    CpuPlatform.check_and_update_config = classmethod(check)


class Engine:
    """Requests in, tokens and the step of each request's first and last one out.

    Tempo's clock moves a millisecond each time it is read, so that no decision depends on how busy the machine is.
    """

    def __init__(self, model: str, *, pipelined: bool) -> None:
        if pipelined:
            pipeline_the_cpu()
        args = EngineArgs(
            model=model,
            enforce_eager=True,
            max_model_len=1024,
            max_num_seqs=4,
            max_num_batched_tokens=128,
            scheduler_cls=f"tempo_vllm.scheduler.Tempo{'Async' if pipelined else ''}Scheduler",
            logits_processors=["tempo_vllm.forced_lengths:ForcedLengths"],
        )
        self._engine = LLMEngine.from_engine_args(args)
        self.scheduler = self._engine.engine_core.engine_core.scheduler
        ticks = itertools.count()
        self.clock = lambda: 1e9 + next(ticks) * 0.001
        self.scheduler.tempo.wall = self.scheduler.tempo.monotonic = self.clock
        self.steps = 0
        self.tokens: dict[str, list[int]] = {}
        self.first_step: dict[str, int] = {}
        self.last_step: dict[str, int] = {}

    def add(self, name: str, prompt: str, output: int, **xargs: Any) -> None:
        free = "forced_output_tokens" not in xargs
        params = SamplingParams(max_tokens=output, ignore_eos=free, temperature=0.0, extra_args=xargs or None)
        self._engine.add_request(name, {"prompt": prompt}, params, arrival_time=self.clock())

    def step(self) -> None:
        self.steps += 1
        for output in self._engine.step():
            self.tokens[output.request_id] = list(output.outputs[0].token_ids)
            self.first_step.setdefault(output.request_id, self.steps)
            if output.finished:
                self.last_step[output.request_id] = self.steps

    def run(self) -> None:
        while self._engine.has_unfinished_requests():
            self.step()


def overtaking(engine: Engine) -> dict[str, Any]:
    """Long requests fill the batch and the queue; then comes one in a hurry."""
    for index in range(6):
        engine.add(f"long-{index}", f"number {index} " * 20, 400, tempo_slo_class="batch")
    for _ in range(40):
        engine.step()
    engine.add("urgent", "answer me", 5, tempo_slo_class="chat", tempo_ttft_s=0.1)
    arrived = engine.steps
    engine.run()
    return {
        "steps_to_first_token": engine.first_step["urgent"] - arrived,
        "first_long_ends_after": min(engine.last_step[f"long-{i}"] for i in range(6)) - arrived,
        "lengths": sorted({len(engine.tokens[f"long-{i}"]) for i in range(6)}),
        "status": engine.scheduler.tempo.status(),
    }


def preempting(engine: Engine) -> dict[str, Any]:
    """The same requests together, losing their places all the time, and then each alone."""
    texts = {f"r{index}": f"{index} is a number; " * (3 + 5 * (index % 3)) for index in range(8)}
    policies = engine.scheduler.tempo.policies
    engine.scheduler.tempo.policies = {"tempo": in_turns(15)}
    for name, text in texts.items():
        engine.add(name, text, 60)
    engine.run()
    together, preemptions = engine.tokens, engine.scheduler.tempo.status()["preemptions"]
    engine.scheduler.tempo.policies = policies
    engine.tokens = {}
    for name, text in texts.items():
        engine.add(name, text, 60)
        engine.run()
    return {
        "together": together,
        "alone": engine.tokens,
        "preemptions": preemptions,
        "status": engine.scheduler.tempo.status(),
    }


def forcing(engine: Engine) -> dict[str, Any]:
    """Requests that lose their places all the time, of which all but one are told how long to be."""
    engine.scheduler.tempo.policies = {"tempo": in_turns(15)}
    lengths = {f"r{tokens}": tokens for tokens in (1, 2, 3, 20, 33, 47, 59, 60)}
    for name, tokens in lengths.items():
        engine.add(name, f"{name} is a number; " * (1 + tokens % 9), 60, forced_output_tokens=tokens)
    engine.add("free", "as long as it likes", 40)
    capped = {request.max_tokens for request in engine.scheduler.requests.values()}
    engine.run()
    return {
        "wanted": lengths,
        "lengths": {name: len(tokens) for name, tokens in engine.tokens.items()},
        "stopped": {name: tokens.index(2) + 1 for name, tokens in engine.tokens.items() if 2 in tokens},
        "scheduler_saw": sorted(capped),
        "preemptions": engine.scheduler.tempo.status()["preemptions"],
    }


def in_turns(most: int) -> Callable[[Snapshot, float], Plan]:
    """A policy that gives every place to somebody else in each pass, `most` times."""
    passes = iter(range(most))

    def policy(snapshot: Snapshot, now_s: float) -> Plan:
        del now_s
        order = sorted(snapshot.entries, key=lambda entry: (entry.running, entry.generated, entry.job.id))
        running = [entry.job.id for entry in order if entry.running] if next(passes, None) is not None else []
        return Plan([e.job.id for e in order], running, snapshot.max_step_tokens, snapshot.max_running, {})

    return policy


def main(model: str, pool: str, scenario: str, *mode: str) -> None:
    os.environ["TEMPO_CONFIG_FILE"] = pool
    engine = Engine(model, pipelined="async" in mode)
    scenarios = {"overtaking": overtaking, "preempting": preempting, "forcing": forcing}
    result = scenarios[scenario](engine)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
