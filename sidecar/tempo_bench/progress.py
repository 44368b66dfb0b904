"""What is happening while a run lasts: counts by class, redrawn in a terminal, a plain line now and then elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tempo_bench.accounting import UnitRecord, settle
from tempo_core.slo import SLOClass

_REDRAW_S: Final = 0.5
_PLAIN_S: Final = 15.0


@dataclass(slots=True)
class _Count:
    arrived: int = 0
    done: int = 0
    attained: int = 0
    failed: int = 0
    gain: float = 0.0


class Tally:
    """Counts of a run, by SLO class. The driver calls `arrived` and `ended`; anyone may look."""

    def __init__(self, classes: Mapping[str, SLOClass]) -> None:
        self._classes = classes
        self.counts = {name: _Count() for name in classes}

    def arrived(self, kind: str) -> None:
        """A unit was sent."""
        self.counts[kind].arrived += 1

    def ended(self, record: UnitRecord) -> None:
        """A unit ended, one way or the other."""
        result, count = settle(record, self._classes), self.counts[record.kind]
        count.done += 1
        count.attained += result.attained
        count.failed += result.error is not None
        count.gain += result.gain


@asynccontextmanager
async def shown(tally: Tally, title: str, total: int, console: Console) -> AsyncIterator[None]:
    """Show `tally` for as long as the block lasts; `total` is how many units the run has (0: unknown)."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    if not console.is_terminal:
        console.print(f"{title}: started", highlight=False)

        def say() -> None:
            console.print(_line(tally, title, loop.time() - began_s), highlight=False, soft_wrap=True)

        async with _every(_PLAIN_S, say):
            yield
        say()
        return
    with Live(_table(tally, title, total, 0.0), console=console, auto_refresh=False) as live:

        def redraw() -> None:
            live.update(_table(tally, title, total, loop.time() - began_s), refresh=True)

        async with _every(_REDRAW_S, redraw):
            yield
        redraw()


@asynccontextmanager
async def _every(seconds: float, act: Callable[[], None]) -> AsyncIterator[None]:
    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            act()

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _line(tally: Tally, title: str, elapsed_s: float) -> str:
    parts = [
        f"{kind} {count.done}/{count.arrived} done, {_percent(count)} on time"
        for kind, count in tally.counts.items()
        if count.arrived
    ]
    return f"{title}: {elapsed_s:.0f} s; " + "; ".join(parts)


def _table(tally: Tally, title: str, total: int, elapsed_s: float) -> Table:
    arrived = sum(count.arrived for count in tally.counts.values())
    of_total = f" of {total}" if total else ""
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{title}: {arrived}{of_total} sent, {elapsed_s:.0f} s", title_justify="left"
    )
    table.add_column("class")
    for name in ("arrived", "in flight", "done", "on time", "gain", "failed"):
        table.add_column(name, justify="right")
    for kind, count in tally.counts.items():
        in_flight = count.arrived - count.done
        cells = (count.arrived, in_flight, count.done, _percent(count), f"{count.gain:,.0f}", count.failed)
        table.add_row(kind, *(str(cell) for cell in cells))
    return table


def _percent(count: _Count) -> str:
    return f"{count.attained / count.done:.0%}" if count.done else "-"
