"""One workload through one endpoint, shown while it lasts and judged when it ends."""

from collections.abc import Mapping

from rich.console import Console

from tempo_bench.accounting import settle
from tempo_bench.client import Target
from tempo_bench.driver import AnyWorkload, drive
from tempo_bench.progress import Tally, shown
from tempo_bench.summary import Run
from tempo_bench.tables import title
from tempo_core.slo import SLOClass


async def measure(
    workload: AnyWorkload,
    target: Target,
    classes: Mapping[str, SLOClass],
    console: Console,
    *,
    load: str,
    policy: str,
    seed: int,
) -> Run:
    """Send `workload` and follow it to its end; `load`, `policy` and `seed` are the run's labels.

    Raises:
        ValueError: if the workload is empty.

    """
    if not workload.units:
        raise ValueError("no request arrives in so short a time; raise the rate or the seconds")
    rate = workload.rate_per_s
    tally = Tally(classes)
    async with shown(tally, f"{title(policy)}, {load}, seed {seed}, {rate:.2f} units/s", len(workload.units), console):
        records = await drive(workload, target, tally)
    results = tuple(settle(record, classes) for record in records)
    return Run(load, policy, seed, rate, workload.fingerprint, results, tuple(records))
