"""What clients see when replicas fail, one after another: `tempo bench router --failures`."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Final

import aiohttp
import uvloop
from rich.console import Console

from tempo_bench.pool import PoolError, tempo
from tempo_bench.routers.contenders import OURS, Place, ours
from tempo_bench.routers.failure_rows import Episode, row_of, table_of
from tempo_bench.routers.lineup import MODEL, clean_environment, made
from tempo_bench.routers.load import HOST
from tempo_bench.routers.open_loop import Clients, End, Seen
from tempo_bench.routers.processes import free_ports, started, until_it_answers
from tempo_bench.routers.rows import write_json
from tempo_bench.routers.stand_ins import FAULTS, StandIn

REPLICAS: Final = 4
_ILL_S: Final = 15.0
_SETTLE_S: Final = 2.0
_BACK_S: Final = 90.0
"""A replica that has no traffic by then is not taken back."""
_LOOK_EVERY_S: Final = 0.1
_START_S: Final = 60.0
_OUT: Final = {"ready": 0.0, "stale": 1.0, "ejected": 1.0}
"""By what the router's metrics say that it gives a replica nothing."""


def run_failures(out: Path, scale: float, console: Console, faults: Sequence[str] = tuple(FAULTS)) -> bool:
    """Let replicas fail in turn, under load, and write what clients saw: failures.json.

    Args:
        out: where results and logs go.
        scale: times the usual time that each is ill.
        console: where to say so.
        faults: some of `FAULTS`, one after another.

    Returns:
        Whether no client hung, no stream was cut off without a word, and nobody saw an error before the first byte.

    Raises:
        PoolError: if the router or a replica does not start.

    """
    with ExitStack() as stack:
        episodes, seen = uvloop.run(_run(out / "logs", faults, scale * _ILL_S, stack, console))
    for episode, following in pairwise(episodes):
        episode.until_s = following.struck_s
    rows = [row_of(episode, seen) for episode in episodes]
    write_json(out / "failures.json", rows)
    console.print(table_of(rows))
    console.print(f"Figures: {out / 'failures.json'}", soft_wrap=True)
    return not any(row[end] for row in rows for end in (End.REFUSED.value, End.TRUNCATED.value, End.HUNG.value))


async def _run(
    logs: Path, faults: Sequence[str], ill_s: float, stack: ExitStack, console: Console
) -> tuple[list[Episode], list[Seen]]:
    port, metrics_port, *ports = free_ports(2 + REPLICAS)
    replicas = [StandIn(f"r{index}", each, logs, stack) for index, each in enumerate(ports)]
    for replica in replicas:
        await replica.start()
    home = made(logs / OURS)
    place = Place(port, metrics_port, replicas[0].url, MODEL, home)
    where = [f"--replica={replica.name}={replica.url}" for replica in replicas]
    manifest = next(contender for contender in ours() if contender.name == OURS).files(place)["pool.yaml"]
    (home / "pool.yaml").write_text(manifest, encoding="utf-8")
    command = tempo("router", "--config", str(home / "pool.yaml"), "--host", HOST, "--port", str(port), *where)
    router = stack.enter_context(started(OURS, command, clean_environment(home), home))
    await until_it_answers(router, port, MODEL, _START_S)
    clients = Clients(f"http://{HOST}:{port}", MODEL)
    try:
        async with clients.sending():
            return await _strike_all(clients, replicas, faults, ill_s, console), clients.seen
    except aiohttp.ClientError as error:
        raise PoolError(f"{OURS} or a replica does not answer ({error}):\n{router.tail()}") from error


async def _strike_all(
    clients: Clients, replicas: Sequence[StandIn], faults: Sequence[str], ill_s: float, console: Console
) -> list[Episode]:
    clock = asyncio.get_running_loop().time
    healthy = Episode("", "", clock())
    await asyncio.sleep(ill_s)
    healthy.healed_s = clock()
    episodes = [healthy]
    async with aiohttp.ClientSession(clients.url) as session:
        for number, fault in enumerate(faults):
            replica = replicas[number % len(replicas)]
            text = f"{number + 1} of {len(faults)}: {replica.name} {FAULTS[fault]}"
            console.print(text, highlight=False, soft_wrap=True)
            episodes.append(await _strike(fault, replica, clients, session, ill_s))
            await asyncio.sleep(_SETTLE_S)
    return episodes


async def _strike(
    fault: str, replica: StandIn, clients: Clients, session: aiohttp.ClientSession, ill_s: float
) -> Episode:
    clock = asyncio.get_running_loop().time
    before = await _look(session, replica.name)
    episode = Episode(fault, replica.name, clock())
    await replica.strike(fault)
    while clock() < episode.struck_s + ill_s:
        look = await _look(session, replica.name)
        if episode.out_s is None and any(look[name] == value for name, value in _OUT.items()):
            episode.out_s = clock()
        await asyncio.sleep(_LOOK_EVERY_S)
    episode.retries = look["retries"] - before["retries"]
    episode.healed_s = clock()
    await replica.heal(fault)
    while clock() < episode.healed_s + _BACK_S and episode.back_s is None:
        episode.back_s = episode.first_good(clients.seen)
        await asyncio.sleep(_LOOK_EVERY_S)
    return episode


async def _look(session: aiohttp.ClientSession, replica: str) -> dict[str, float]:
    """What the router's metrics say of the replica, and how often it has retried."""
    async with session.get("/metrics") as answer:
        text = await answer.text()
    said = re.findall(rf'^tempo_router_replica_(\w+){{replica="{replica}"}} (.+)$', text, re.MULTILINE)
    said += re.findall(r"^tempo_router_(retries)_total (.+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in said}
