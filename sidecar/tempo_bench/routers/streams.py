"""Very many streams at once: `tempo bench router --streams N`."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any, Final

import orjson
import uvloop
from rich.console import Console

from tempo_bench.pool import PoolError
from tempo_bench.routers.contenders import OURS, ours
from tempo_bench.routers.lineup import MODEL, lineup
from tempo_bench.routers.load import connections, send
from tempo_bench.routers.measure import Entrant, milliseconds
from tempo_bench.routers.requests import Requests, Shape
from tempo_bench.routers.rows import write_json

_HOLD_S: Final = 20.0
"""How long each stream lasts. They start within a quarter of it, so that all are open for most of it."""
_IDLE_S: Final = 2.0


def run_streams(count: int, gap_ms: int, out: Path, console: Console, hold_s: float = _HOLD_S) -> bool:
    """Open so many streams through Tempo's router, each with `gap_ms` between chunks: streams.json.

    The event loop's lag is taken from outside: `/healthz` is asked every 10 ms by a process of its own.

    Returns:
        Whether all came to their end.

    Raises:
        PoolError: if the router does not start, or ends.

    """
    tempo_only = [contender for contender in ours() if contender.name == OURS]
    with lineup(tempo_only, out / "logs", console) as entrants:
        row = uvloop.run(_many_streams(entrants[-1], count, gap_ms, hold_s, console))
    write_json(out / "streams.json", row)
    console.print(
        f"{row['completed']:,} of {count:,} streams complete, {row['errors'] or 'no errors'}; "
        f"{row['rss_before_mb']} MB before, {row['rss_mb']} MB with all open; CPU {row['cpu_share']:.0%} of a core; "
        f"/healthz p50 {row['healthz_p50_ms']} ms, p99 {row['healthz_p99_ms']} ms "
        f"(without streams {row['healthz_idle_p99_ms']} ms)",
        soft_wrap=True,
        highlight=False,
    )
    return bool(row["completed"] == count)


async def _many_streams(router: Entrant, count: int, gap_ms: int, hold_s: float, console: Console) -> dict[str, Any]:
    ramp_s = hold_s / 4.0
    idle = await _healthz(router.port, _IDLE_S)
    before = router.usage()
    shape = Shape(chunks=max(int(hold_s * 1e3 / gap_ms), 1), gap_ms=gap_ms)
    with console.status(f"{count:,} streams for {hold_s + ramp_s:.0f} s..."):
        async with connections(router.port, count) as opened:
            sending = asyncio.create_task(send(opened, Requests(shape, MODEL), hold_s + ramp_s, count, ramp_s))
            await asyncio.sleep(ramp_s)
            middle = router.usage()
            busy = await _healthz(router.port, hold_s - ramp_s)
            after = router.usage()
            tally = await sending
    return {
        "router": router.name,
        "version": router.version,
        "streams": count,
        "gap_ms": gap_ms,
        "completed": len(tally.latencies_s),
        "errors": dict(tally.errors),
        "rss_before_mb": round(before.rss_mb, 1),
        "rss_mb": round(after.rss_mb, 1),
        "cpu_share": round((after.cpu_s - middle.cpu_s) / (hold_s - ramp_s), 3),
        "ttft_p50_ms": milliseconds(tally.firsts_s, 50),
        "ttft_p99_ms": milliseconds(tally.firsts_s, 99),
        "healthz_idle_p99_ms": milliseconds(idle, 99),
        "healthz_p50_ms": milliseconds(busy, 50),
        "healthz_p99_ms": milliseconds(busy, 99),
        "healthz_max_ms": milliseconds(busy, 100),
    }


async def _healthz(port: int, seconds: float) -> list[float]:
    """Times of `/healthz` in seconds, taken by a process of its own.

    Raises:
        PoolError: if it does not answer.

    """
    command = (sys.executable, "-m", "tempo_bench.routers.lag", str(port), str(seconds))
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    said, wrong = await process.communicate()
    if process.returncode:
        raise PoolError(f"/healthz did not answer: {wrong.decode().strip().splitlines()[-1]}")
    return list(orjson.loads(said))
