"""One workload against an endpoint that already runs."""

from dataclasses import dataclass
from pathlib import Path

import orjson
from rich.console import Console

from tempo_api.manifest import load_pool
from tempo_bench.client import Target
from tempo_bench.measure import measure
from tempo_bench.summary import summarise
from tempo_bench.tables import comparison
from tempo_bench.workload import WorkloadSpec, build_workload, check_classes


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What the command line asks for; `model` is the pool's unless given."""

    manifest: Path
    url: str
    model: str | None = None
    rate: float = 1.0
    seconds: float = 60.0
    seed: int = 1
    json_file: Path | None = None


async def run_load(spec: LoadSpec, console: Console) -> bool:
    """Send it, print the table, write the rows; False if too many requests failed to call it a result.

    Raises:
        ManifestError: for a manifest that can't be used.
        ValueError: if the pool lacks a class of the mix, or no request arrives in so short a time.

    """
    declared = load_pool(spec.manifest)
    check_classes(declared.classes)
    workload = build_workload(WorkloadSpec(spec.rate, spec.seconds, spec.seed))
    target = Target(spec.url.rstrip("/"), spec.model or declared.served_model_name)
    run = await measure(workload, target, declared.classes, console, load="load", policy="endpoint", seed=spec.seed)
    console.print(comparison([run], run.load))
    if spec.json_file:
        spec.json_file.write_bytes(orjson.dumps(summarise(run), option=orjson.OPT_INDENT_2) + b"\n")
    if not run.sound:
        console.print(run.complaint, style="bold red", markup=False)
    return run.sound
