"""The demonstration: the same workloads through vLLM's own scheduler and through Tempo, on the same pool.

Capacity is measured once, under the first policy; light load and overload are multiples of it. Every policy gets a
freshly started pool, the same short warm-up, and then exactly the same workloads, one after the other, each followed
until its last answer.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from tempo_api.manifest import Pool, load_pool
from tempo_bench import report
from tempo_bench.capacity import Capacity, capacity
from tempo_bench.client import Target
from tempo_bench.driver import saturate
from tempo_bench.machine import describe
from tempo_bench.measure import measure
from tempo_bench.pool import PoolStarter, pool
from tempo_bench.progress import Tally, shown
from tempo_bench.results import write_results
from tempo_bench.summary import Run, names
from tempo_bench.tables import ROW_NAMES, comparison, title
from tempo_bench.workload import Workload, WorkloadSpec, build_workload, check_classes

_IN_FLIGHT: Final = 24
"""Units kept going while calibrating: with the agents' parallel calls, well beyond the engine's 16 places."""
_RAMP: Final = 0.2
"""Share of the calibration that fills the engine and is not counted."""
_CALIBRATION_SEED: Final = 1_000_000
_WARM_UP_UNITS: Final = 6
_WARM_UP_S: Final = 10.0
_START_S: Final = 40.0
_SEED_STEP: Final = 100_000

_TRY: Final = """
Try it yourself: tempo up -f {manifest}, and in another terminal:
curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' -H 'x-tempo-slo-class: chat' \
-d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Why is the sky blue?"}}], "max_tokens": 64}}'
"""


@dataclass(frozen=True, slots=True)
class DemoSpec:
    """What the command line asks for. Loads are multiples of capacity; `rate` (units/s) stands in for measuring it."""

    manifest: Path
    out: Path
    policies: tuple[str, ...] = ("engine", "tempo")
    seeds: tuple[int, ...] = (1,)
    light: float = 0.5
    overload: float = 1.5
    light_seconds: float = 40.0
    seconds: float = 100.0
    rate: float | None = None
    calibration_s: float = 25.0

    def estimate_s(self) -> float:
        """How long all this takes, roughly: the backlog that an overload leaves still has to be served."""
        backlog_s = max(self.overload - 1.0, 0.0) * self.seconds + 10.0
        a_seed_s = self.light_seconds + 10.0 + self.seconds + backlog_s
        calibration_s = 0.0 if self.rate else self.calibration_s + 15.0
        return len(self.policies) * (_START_S + _WARM_UP_S + len(self.seeds) * a_seed_s) + calibration_s


def run_demo(spec: DemoSpec, console: Console, start: PoolStarter = pool) -> bool:
    """Run everything, print the tables, write the report; False if too many requests failed to call it a result.

    Raises:
        ManifestError: for a manifest that can't be used.
        PoolError: if the pool does not start.
        ValueError: if the pool lacks a class of the mix, or the calibration was too short to tell.

    """
    declared = load_pool(spec.manifest)
    check_classes(declared.classes)
    spec.out.mkdir(parents=True, exist_ok=True)
    _announce(spec, console)
    runs: list[Run] = []
    rate, measured = spec.rate, None
    for policy in spec.policies:
        console.print(f"Starting the pool under {_called(policy)}...")
        with start(spec.manifest, policy, spec.out / "logs" / policy) as url:
            target = Target(url, declared.served_model_name)
            asyncio.run(_warm_up(declared, target, console))
            if rate is None:
                measured = asyncio.run(_calibrate(spec.calibration_s, declared, target, console))
                rate = measured.units_per_s
                console.print(f"Capacity: {rate:.2f} units/s ({measured.output_tokens_per_s:.0f} output tokens/s)")
            runs += asyncio.run(_measure_all(spec, rate, declared, target, policy, console))
    _write(spec, declared, runs, rate or 0.0, measured)
    _show(spec, declared.served_model_name, runs, console)
    return all(run.sound for run in runs)


async def _warm_up(declared: Pool, target: Target, console: Console) -> None:
    """A few units of each kind, so that no policy pays for first times."""
    units = build_workload(WorkloadSpec(1.0, 60.0, _CALIBRATION_SEED + 1)).units[:_WARM_UP_UNITS]
    tally = Tally(declared.classes)
    async with shown(tally, "warm-up", len(units), console):
        await saturate(units, target, tally, in_flight=len(units), seconds=60.0)


async def _calibrate(seconds: float, declared: Pool, target: Target, console: Console) -> Capacity:
    """A closed loop that keeps the engine full."""
    workload = build_workload(WorkloadSpec(10.0, 100.0, _CALIBRATION_SEED))
    tally = Tally(declared.classes)
    async with shown(tally, "capacity", 0, console):
        records = await saturate(workload.units, target, tally, in_flight=_IN_FLIGHT, seconds=seconds)
    return capacity(records, workload.spec.mix, _RAMP * seconds, seconds)


async def _measure_all(
    spec: DemoSpec, rate: float, declared: Pool, target: Target, policy: str, console: Console
) -> list[Run]:
    name = ROW_NAMES.get(policy, policy)
    return [
        await measure(workload, target, declared.classes, console, load=load, policy=name, seed=seed)
        for load, seed, workload in _loads(spec, rate)
    ]


def _loads(spec: DemoSpec, rate: float) -> list[tuple[str, int, Workload]]:
    """(load, seed, workload) of each run of a policy; they depend on the seed, the rate and nothing else.

    The two loads draw from different seeds, so that overload's prompts are not in the prefix cache already.
    """
    plans = (("light", spec.light, spec.light_seconds), ("overload", spec.overload, spec.seconds))
    return [
        (load, seed, build_workload(WorkloadSpec(multiple * rate, seconds, seed + _SEED_STEP * index)))
        for seed in spec.seeds
        for index, (load, multiple, seconds) in enumerate(plans)
    ]


def _called(policy: str) -> str:
    return title(ROW_NAMES.get(policy, policy))


def _announce(spec: DemoSpec, console: Console) -> None:
    console.print(
        f"Plan: {' and '.join(map(_called, spec.policies))}, each on a fresh pool of {spec.manifest}; "
        f"{spec.light:g} x capacity for {spec.light_seconds:g} s, then {spec.overload:g} x capacity for "
        f"{spec.seconds:g} s, each to its last answer; seeds {', '.join(map(str, spec.seeds))}. "
        f"About {spec.estimate_s() / 60.0:.0f} minutes.",
        highlight=False,
    )


def _write(spec: DemoSpec, declared: Pool, runs: Sequence[Run], rate: float, measured: Capacity | None) -> None:
    write_results(spec.out, runs)
    settings = report.Settings(
        model=declared.served_model_name,
        engine_args=tuple(declared.spec.engine.args),
        classes=declared.classes,
        capacity_per_s=rate,
        measured=measured,
        machine=describe(),
    )
    (spec.out / "report.html").write_text(report.render(runs, settings), encoding="utf-8")


def _show(spec: DemoSpec, model: str, runs: Sequence[Run], console: Console) -> None:
    for load in names(runs, "load"):
        console.print(comparison(runs, load))
    for run in runs:
        if not run.sound:
            console.print(run.complaint, style="bold red", markup=False)
    console.print(f"Report: {spec.out / 'report.html'}   figures: {spec.out / 'summary.json'}", soft_wrap=True)
    console.print(_TRY.format(manifest=spec.manifest, model=model), soft_wrap=True, highlight=False, markup=False)
