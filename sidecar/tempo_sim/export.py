"""A sweep's workloads as files, for `tempo bench replay`; and lengths that fit a smaller engine."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path

from tempo_sim.sources import Source
from tempo_sim.sweep import Sweep
from tempo_sim.traces import write_trace
from tempo_sim.traces.blocks import reblock
from tempo_sim.workload import BLOCK_TOKENS, SimCall, SimUnit


def fitted(source: Source, scale: float, longest_tokens: int | None) -> Source:
    """The same units with all lengths times `scale`: prompts, their shared prefixes, answers and caps.

    What is then longer than `longest_tokens`, prompt and cap together, is cut: the cap to half of it, and the prompt to
    what the cap leaves.
    """
    return source if scale == 1.0 and longest_tokens is None else partial(_fitted, source, scale, longest_tokens)


def write(sweep: Sweep, capacity_per_s: float, folder: Path) -> list[Path]:
    """Write the units of each load and seed into `folder`, in our own format; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for load in sweep.loads:
        for seed in sweep.seeds:
            files.append(folder / f"load-{load:g}-seed-{seed}.jsonl")
            write_trace(files[-1], sweep.workload(load * capacity_per_s, sweep.seconds, seed))
    return files


def _fitted(
    source: Source, scale: float, longest_tokens: int | None, rate_per_s: float, seconds: float, seed: int
) -> Sequence[SimUnit]:
    def fit(unit: SimUnit) -> SimUnit:
        return replace(unit, stages=tuple(tuple(_fit(call, scale, longest_tokens) for call in s) for s in unit.stages))

    return [fit(unit) for unit in source(rate_per_s, seconds, seed)]


def _fit(call: SimCall, scale: float, longest_tokens: int | None) -> SimCall:
    prompt, cap = max(round(scale * call.prompt_tokens), 1), ceil(scale * call.max_tokens)
    if longest_tokens is not None and prompt + cap > longest_tokens:
        cap = min(cap, longest_tokens // 2)
        prompt = min(prompt, longest_tokens - cap)
    traced = scale * BLOCK_TOKENS
    prefix = reblock(call.prefix, trace_tokens=traced, engine_tokens=BLOCK_TOKENS, prompt_tokens=prompt, known={})
    output = min(max(round(scale * call.output_tokens), 1), cap)
    return replace(call, prompt_tokens=prompt, output_tokens=output, max_tokens=cap, prefix=prefix)
