"""Memory over a long steady load: `tempo bench router --soak SECONDS`."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop
from rich.console import Console

from tempo_bench.routers.contenders import DIRECT, OURS, ours
from tempo_bench.routers.lineup import MODEL, lineup
from tempo_bench.routers.load import Tally, connections, send
from tempo_bench.routers.measure import Entrant
from tempo_bench.routers.requests import Requests, Shape
from tempo_bench.routers.rows import write_json

_LOAD: Final = ((12, Shape()), (4, Shape(chunks=100, gap_ms=5)))
"""Connections, and what they ask for: whole answers and streams take different paths."""
_SAMPLES: Final = 60
_FLAT_MB: Final = 2.0
_FLAT_SHARE: Final = 0.02

Series = list[tuple[float, float]]
"""(seconds since the start, resident MB)."""


def growth_mb(series: Series) -> float:
    """By how much memory grows over the last two thirds of a series: the rise of the straight line through them.

    The first third is left out: caches, pools and the allocator's arenas fill then.
    """
    settled = np.array([point for point in series if point[0] >= series[-1][0] / 3.0])
    if len(settled) < 2:
        return 0.0
    slope = np.polyfit(settled[:, 0], settled[:, 1], 1)[0]
    return float(slope * (settled[-1, 0] - settled[0, 0]))


def is_flat(series: Series) -> bool:
    """Whether memory grows by no more than 2 MB, or 2% of what it is, after the first third."""
    return growth_mb(series) <= max(_FLAT_MB, _FLAT_SHARE * series[-1][1])


def run_soak(seconds: float, out: Path, console: Console) -> bool:
    """Load Tempo's router and the bare pass-through, both at once, and say whether their memory is flat: soak.json.

    Returns:
        Whether Tempo's is, and it gave no error.

    Raises:
        PoolError: if one of them does not start, or ends.

    """
    with lineup(ours(), out / "logs", console) as entrants:
        routers = [entrant for entrant in entrants if entrant.name != DIRECT]
        rows = uvloop.run(_soak_all(routers, seconds, console))
    write_json(out / "soak.json", rows)
    for row in rows:
        first, last = row["rss_mb"][0][1], row["rss_mb"][-1][1]
        verdict = "flat" if row["flat"] else "NOT flat"
        console.print(
            f"{row['router']}: {row['requests']:,} requests, {row['errors'] or 'no errors'}; {first:.1f} MB at first, "
            f"{last:.1f} MB at last, {row['growth_mb']:+.2f} MB after the first third: {verdict}",
            soft_wrap=True,
            highlight=False,
        )
    return all(row["flat"] and not row["errors"] for row in rows if row["router"] == OURS)


async def _soak_all(routers: Sequence[Entrant], seconds: float, console: Console) -> list[dict[str, Any]]:
    with console.status(f"Steady load for {seconds:.0f} s..."):
        return await asyncio.gather(*(_soak(router, seconds) for router in routers))


async def _soak(router: Entrant, seconds: float) -> dict[str, Any]:
    sampling = asyncio.create_task(_sample_memory(router, seconds))
    tallies = await asyncio.gather(*(_steady(router, count, shape, seconds) for count, shape in _LOAD))
    series = await sampling
    return {
        "router": router.name,
        "version": router.version,
        "seconds": seconds,
        "requests": sum(len(tally.latencies_s) for tally in tallies),
        "errors": dict(sum((tally.errors for tally in tallies), Counter())),
        "growth_mb": round(growth_mb(series), 3),
        "flat": is_flat(series),
        "rss_mb": [[round(at_s, 1), round(rss_mb, 2)] for at_s, rss_mb in series],
    }


async def _steady(router: Entrant, count: int, shape: Shape, seconds: float) -> Tally:
    async with connections(router.port, count) as opened:
        return await send(opened, Requests(shape, MODEL), seconds)


async def _sample_memory(router: Entrant, seconds: float) -> Series:
    loop = asyncio.get_running_loop()
    began_s, every_s = loop.time(), max(seconds / _SAMPLES, 0.05)
    series: Series = []
    while (at_s := loop.time() - began_s) < seconds:
        series.append((at_s, router.usage().rss_mb))
        await asyncio.sleep(every_s)
    return series
