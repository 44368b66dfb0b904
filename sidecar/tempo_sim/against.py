"""The simulator beside a real run: the same units, policy and settings, and how far apart the figures are.

A run is a folder that `tempo bench replay` wrote. Each of its runs (a policy, a seed) is simulated on an engine whose
step times are fitted to that run's own tokens, because a machine's speed changes from one run to the next. So the time
between tokens is fitted; waiting, order, throughput and attainment follow from the scheduler alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec

from tempo_api.manifest import Pool
from tempo_core.graphs import PatternGraphs
from tempo_core.policies import POLICIES
from tempo_core.slo import SLOClass
from tempo_sim.against_fit import Seen, fit_profile
from tempo_sim.lengths import WindowLengths
from tempo_sim.profiles import EngineProfile
from tempo_sim.rows import ALL, Row, figures
from tempo_sim.run import simulate
from tempo_sim.traces import read_trace
from tempo_sim.units import CallResult, UnitResult, judge
from tempo_sim.workload import SimUnit

OURS: Final = {"vllm-priority": "priority"}
"""What vLLM's own orders are called here, where it is another name."""

COMPARED: Final = (
    "attainment",
    "ttft_p50_s",
    "ttft_p99_s",
    "tbt_p50_s",
    "tbt_p99_s",
    "ttlt_p50_s",
    "ttlt_p99_s",
    "tokens_per_s",
)
"""Figures that are compared."""

_WARM_UP: Final = 0
"""The seed of a workload that was sent first and not counted."""

_FIT: Final = ("decode_base_s", "sequence_s", "prefill_token_s")


class _Call(msgspec.Struct):
    sent_s: float
    prompt_tokens: int
    stamps: list[tuple[float, int]]
    cached_tokens: int = 0


class _Line(msgspec.Struct):
    policy: str
    seed: int
    id: str
    slo_class: str
    arrival_s: float
    stages: list[list[_Call]]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """One run, real and simulated: the units that the real one served, in the same order."""

    policy: str
    seed: int
    real: tuple[UnitResult, ...]
    simulated: tuple[UnitResult, ...]
    profile: EngineProfile
    failed: int
    """Units that the real run failed, which neither side counts."""


def pairs(folder: Path, pool: Pool, sizes: EngineProfile) -> Iterator[Pair]:
    """Simulate each run of `folder`, in order; a policy's seeds share what is learned, as in a pool.

    Raises:
        ValueError: for a folder that `tempo bench replay` did not write, or a policy that there is not.

    """
    for policy, lines in groupby(_lines(folder), key=lambda line: line.policy):
        if (name := OURS.get(policy, policy)) not in POLICIES:
            raise ValueError(f"{policy!r} is no policy that can be simulated; there are {', '.join(POLICIES)}")
        lengths, graphs, warm_up = WindowLengths(), PatternGraphs(), _workload(folder, _WARM_UP, pool.classes)
        for seed, run in groupby(lines, key=lambda line: line.seed):
            good, failed = _split(run)
            calls = [call for line in good.values() for stage in line.stages for call in stage]
            profile = fit_profile([Seen(_stamps(c), c.prompt_tokens - c.cached_tokens) for c in calls], sizes)
            serve = partial(_served, pool=pool, policy=name, profile=profile, lengths=lengths, graphs=graphs)
            if warm_up:
                serve(warm_up)
                warm_up = ()
            units = [unit for unit in _workload(folder, seed, pool.classes) if unit.id in good]
            real = tuple(_judged(good[unit.id], pool.classes) for unit in units)
            yield Pair(policy, seed, real, serve(units), profile, failed)


def _served(
    units: Sequence[SimUnit],
    *,
    pool: Pool,
    policy: str,
    profile: EngineProfile,
    lengths: WindowLengths,
    graphs: PatternGraphs,
) -> tuple[UnitResult, ...]:
    return simulate(
        units,
        pool.classes,
        POLICIES[policy],
        profile,
        replicas=pool.replicas,
        settings=pool.settings,
        lengths=lengths,
        graphs=graphs,
        frame_steps=pool.spec.scheduler.frame_steps,
    ).units


def compare(made: Sequence[Pair]) -> list[Row]:
    """A row for each run and class, then one for each policy and class with its seeds pooled (`seed` is null).

    Each has `real`, `simulated` and `error`: of times and throughput the relative one, of attainment the difference.
    """
    rows = [row for pair in made for row in _compared([pair], pair.seed)]
    for policy in dict.fromkeys(pair.policy for pair in made):
        rows += _compared([pair for pair in made if pair.policy == policy], None)
    return rows


def _compared(made: Sequence[Pair], seed: int | None) -> Iterator[Row]:
    classes = sorted({unit.slo_class for pair in made for unit in pair.real})
    fit = {key: [getattr(pair.profile, key) for pair in made] for key in _FIT}
    for name in (*classes, ALL):
        real = _figures([pair.real for pair in made], name)
        simulated = _figures([pair.simulated for pair in made], name)
        error = {key: _error(key, simulated[key], real[key]) for key in COMPARED}
        labels = {"policy": made[0].policy, "seed": seed, "slo_class": name, "failed": sum(p.failed for p in made)}
        yield {**labels, "real": real, "simulated": simulated, "error": error, "fit": fit}


def _figures(runs: Sequence[Sequence[UnitResult]], slo_class: str) -> Row:
    """All runs together; throughput over the sum of their durations."""
    chosen = [[unit for unit in run if slo_class in {ALL, unit.slo_class}] for run in runs]
    found = figures([unit for run in chosen for unit in run])
    seconds = sum(max((unit.ended_s for unit in run), default=0.0) for run in chosen)
    found["tokens_per_s"] = round(found["output_tokens"] / seconds, 3) if seconds else None
    return {"requests": found["requests"], **{key: found[key] for key in COMPARED}}


def _error(key: str, simulated: float | None, real: float | None) -> float | None:
    if simulated is None or real is None:
        return None
    if key == "attainment":
        return round(simulated - real, 4)
    return round(simulated / real - 1.0, 4) if real else None


def _lines(folder: Path) -> Iterator[_Line]:
    path = folder / "requests.jsonl"
    decode = msgspec.json.Decoder(_Line).decode
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield decode(line)
                except msgspec.DecodeError as error:
                    raise ValueError(f"{path}: line {number}: {error}") from None
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}); tempo bench replay --out writes it") from error


def _split(run: Iterator[_Line]) -> tuple[dict[str, _Line], int]:
    """The units that were served, by id, and how many were not."""
    lines = list(run)
    good = {line.id: line for line in lines if line.error is None}
    return good, len(lines) - len(good)


def _workload(folder: Path, seed: int, classes: Mapping[str, SLOClass]) -> Sequence[SimUnit]:
    found = sorted(folder.glob(f"workloads/{seed}.jsonl*"))
    if not found and seed == _WARM_UP:
        return ()
    if not found:
        raise ValueError(f"{folder / 'workloads'} has no file for seed {seed}; tempo bench replay writes it")
    return list(read_trace(found[0], classes=classes))


def _judged(line: _Line, classes: Mapping[str, SLOClass]) -> UnitResult:
    calls = [
        CallResult(call.sent_s, call.prompt_tokens, stage, _stamps(call))
        for stage, calls in enumerate(line.stages)
        for call in calls
    ]
    return judge(line.id, classes[line.slo_class], line.arrival_s, calls)


def _stamps(call: Any) -> list[float]:
    """A time for each token; those that arrived together have the same."""
    return [at_s for at_s, count in call.stamps for _ in range(count)]
