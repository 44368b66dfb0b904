"""`tempo bench replay`: workload files through several policies, each answer as long as its file says.

Every policy gets a freshly started pool whose sampler forces the lengths, a short warm-up, and then the files, one
after the other, each in an open loop and followed to its last answer. A file is one seed: the tables pool them. A file
for warming up goes first and is not counted: from it the sidecar learns what lengths to expect, as one that has served
for a while has. What is written is all that `tempo simulate --against` needs: the files, the one for warming up as seed
0, and a line for each unit with the time of each token.
"""

import asyncio
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from tempo_api.manifest import Pool, load_pool
from tempo_bench.client import Target
from tempo_bench.driver import saturate
from tempo_bench.measure import measure
from tempo_bench.pool import PoolStarter, pool
from tempo_bench.progress import Tally, shown
from tempo_bench.results import write_results
from tempo_bench.summary import Run
from tempo_bench.tables import ROW_NAMES, comparison, title
from tempo_bench.workload_file import FileWorkload, ReplayCall, ReplayUnit, read_workload

LOAD: Final = "replay"
"""What the load is called in the rows."""

ENGINE_ARGS: Final = (
    "--logits-processors=tempo_vllm.forced_lengths:ForcedLengths",
    "--enable-prompt-tokens-details",  # how much of a prompt was in the cache
)

_WARM_UP: Final = ReplayCall((33,) * 64, 16, 64, 0.0)


@dataclass(frozen=True, slots=True)
class ReplaySpec:
    """What the command line asks for. With `url`, an endpoint that already runs stands in for the policies' pools."""

    manifest: Path
    files: tuple[Path, ...]
    out: Path
    policies: tuple[str, ...] = ("engine", "engine-priority", "tempo")
    url: str | None = None
    model: str | None = None
    warm_up: Path | None = None

    @property
    def seeds(self) -> dict[int, Path]:
        """Each file's seed, from 1; 0 is for warming up."""
        return ({0: self.warm_up} if self.warm_up else {}) | dict(enumerate(self.files, 1))


def run_replay(spec: ReplaySpec, console: Console, start: PoolStarter = pool) -> bool:
    """Send everything, print the table, write rows and requests; False if too many requests failed for a result.

    Raises:
        ManifestError: for a manifest that can't be used.
        PoolError: if a pool does not start.
        ValueError: for a workload file that can't be used.

    """
    declared = load_pool(spec.manifest)
    workloads = {seed: read_workload(file, declared.classes, str(seed)) for seed, file in spec.seeds.items()}
    _copy(spec)
    model = spec.model or declared.served_model_name
    runs: list[Run] = []
    for name, endpoint in _endpoints(spec, console, start):
        with endpoint as url:
            runs += asyncio.run(_measure_all(workloads, Target(url, model), declared, name, console))
        write_results(spec.out, runs)  # after each: a later pool may not start
    console.print(comparison(runs, LOAD))
    for run in runs:
        if run.errors:
            console.print(run.complaint, style="bold red", markup=False)
    console.print(f"Figures: {spec.out / 'summary.json'}   requests: {spec.out / 'requests.jsonl'}", soft_wrap=True)
    return all(run.sound for run in runs)


def _endpoints(
    spec: ReplaySpec, console: Console, start: PoolStarter
) -> Iterator[tuple[str, AbstractContextManager[str]]]:
    """The policies' names in the rows, each with what yields its URL."""
    if spec.url:
        yield "endpoint", nullcontext(spec.url.rstrip("/"))
        return
    for policy in spec.policies:
        name = ROW_NAMES.get(policy, policy)
        console.print(f"Starting the pool under {title(name)}...")
        yield name, start(spec.manifest, policy, spec.out / "logs" / policy, *ENGINE_ARGS)


def _copy(spec: ReplaySpec) -> None:
    """Keep the files beside the results, each by its seed, and none of an earlier run's."""
    folder = spec.out / "workloads"
    contents = {f"{seed}.jsonl{'.gz' * (file.suffix == '.gz')}": file.read_bytes() for seed, file in spec.seeds.items()}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


async def _measure_all(
    workloads: Mapping[int, FileWorkload], target: Target, declared: Pool, policy: str, console: Console
) -> list[Run]:
    await _warm_up(target, declared, console)
    runs = [
        await measure(workload, target, declared.classes, console, load=LOAD, policy=policy, seed=seed)
        for seed, workload in workloads.items()
    ]
    return [run for run in runs if run.seed]


async def _warm_up(target: Target, declared: Pool, console: Console) -> None:
    """A few calls of each class, so that no policy pays for first times."""
    units = [ReplayUnit(f"warm-up-{name}", name, 0.0, ((_WARM_UP,) * 3,), program=False) for name in declared.classes]
    async with shown(Tally(declared.classes), "warm-up", len(units), console):
        await saturate(units, target, Tally(declared.classes), in_flight=len(units), seconds=30.0)
