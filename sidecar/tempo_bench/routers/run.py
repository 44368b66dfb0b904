"""`tempo bench router`: everyone side by side."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tempo_bench.machine import describe
from tempo_bench.routers.cases import Plan
from tempo_bench.routers.contenders import BARE, DIRECT, OURS, how_to_install, installed, ours
from tempo_bench.routers.lineup import MODEL, lineup
from tempo_bench.routers.measure import Entrant, remember, take_turns
from tempo_bench.routers.rows import Row, summarise, write_json
from tempo_bench.routers.tables import tables

_PLAIN_S: Final = 15.0


def run_routers(rivals: Path, out: Path, plan: Plan, console: Console) -> bool:
    """Compare all routers that are there, print the tables and write `out`/summary.json.

    Args:
        rivals: a virtual environment that has the rivals; those that it lacks are named.
        out: where results and logs go.
        plan: how much of what is sent.
        console: where to say so.

    Returns:
        Whether the backend, the bare pass-through and Tempo's router answered everything without an error.

    Raises:
        PoolError: if one of those three does not start.

    """
    found, missing = installed(rivals.absolute())
    if missing:
        console.print(f"Not in {rivals}, so not compared: {', '.join(missing)}. To install:", highlight=False)
        console.print(how_to_install(rivals, missing), soft_wrap=True, highlight=False, markup=False)
    out.mkdir(parents=True, exist_ok=True)
    console.print(describe(), highlight=False)
    with lineup([*ours(), *found], out / "logs", console) as entrants:
        rows = uvloop.run(_compare(entrants, plan, console))
    write_json(out / "summary.json", rows)
    for table in tables(plan.cases, rows):
        console.print(table)
    console.print(f"Figures: {out / 'summary.json'}", soft_wrap=True)
    return all(row["ranked"] for row in rows if row["router"] in {DIRECT, BARE, OURS})


async def _compare(entrants: Sequence[Entrant], plan: Plan, console: Console) -> list[Row]:
    before = {entrant.name: entrant.usage().rss_mb for entrant in entrants if entrant.running}
    with _progress(console, plan.rounds * len(plan.cases) * len(entrants) + len(before)) as advance:
        records = await take_turns(entrants, MODEL, plan, advance)
        memories = {}
        for entrant in entrants:
            if entrant.name in before:
                advance(f"memory, {entrant.name}")
                memories[entrant.name] = await remember(entrant, before[entrant.name], records, MODEL, plan)
    return summarise(entrants, records, memories)


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[str], None]]:
    """A bar in a terminal, a line now and then elsewhere; call what it yields before each of `total` steps."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # Redrawn seldom: it takes from the load generator.
    with Progress(*columns, console=console, refresh_per_second=2, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        done, said_s = -1, float("-inf")

        def advance(what: str) -> None:
            nonlocal done, said_s
            done += 1
            bar.update(task, completed=done, description=what)
            if not console.is_terminal and time.monotonic() - said_s >= _PLAIN_S:
                said_s = time.monotonic()
                console.print(f"{done} of {total}: {what}", highlight=False)

        yield advance
        bar.update(task, completed=total, description="done")
