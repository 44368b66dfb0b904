"""Starting the backend, and everyone in front of it."""

import os
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console

from tempo_bench.pool import PoolError
from tempo_bench.routers.contenders import BARE, DIRECT, OURS, Contender, Place
from tempo_bench.routers.load import HOST
from tempo_bench.routers.measure import Entrant
from tempo_bench.routers.processes import free_ports, started, until_it_answers

MODEL: Final = "bench-model"
_START_S: Final = 240.0
"""LiteLLM imports for ten seconds where nothing else runs, and all start at once."""


@contextmanager
def lineup(contenders: Sequence[Contender], folder: Path, console: Console) -> Iterator[list[Entrant]]:
    """The backend itself and each contender in front of it, running and answering; logs are below `folder`.

    A rival that does not start is told of and left out.

    Raises:
        PoolError: if one of ours does not start.

    """
    _raise_file_limit()
    with ExitStack() as stack:
        ports = free_ports(1 + 2 * len(contenders))
        port, own = ports.pop(), made(folder / "backend")
        command = [sys.executable, "-m", "tempo_bench.routers.backend", str(port), MODEL]
        backend = stack.enter_context(started("backend", command, clean_environment(own), own))
        _await(Entrant("backend", "", port, backend))
        with console.status("Starting the routers..."):
            entrants = [stack.enter_context(_started(contender, port, ports, folder)) for contender in contenders]
            ready = [entrant for entrant in entrants if _is_ready(entrant, console)]
        yield [Entrant(DIRECT, "", port), *ready]


@contextmanager
def _started(contender: Contender, backend: int, ports: list[int], folder: Path) -> Iterator[Entrant]:
    own = made(folder / contender.name.replace(" ", "-"))
    place = Place(ports.pop(), ports.pop(), f"http://{HOST}:{backend}", MODEL, own)
    for name, text in contender.files(place).items():
        (own / name).write_text(text, encoding="utf-8")
    environment = {**clean_environment(own), **contender.environment}
    with started(contender.name, contender.command(place), environment, own) as running:
        yield Entrant(contender.name, contender.version, place.port, running)


def _is_ready(entrant: Entrant, console: Console) -> bool:
    """Wait until it answers. A rival may fail to; one of ours may not."""
    try:
        _await(entrant)
    except PoolError as error:
        if entrant.name in {BARE, OURS}:
            raise
        console.print(f"Left out: {error}", style="red", highlight=False, markup=False)
        return False
    return True


def _await(entrant: Entrant) -> None:
    if entrant.running:
        uvloop.run(until_it_answers(entrant.running, entrant.port, MODEL, _START_S))


def clean_environment(home: Path) -> dict[str, str]:
    """What a router is started with: nothing of ours, proxies and keys least of all."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LANG": "C.UTF-8"}


def made(path: Path) -> Path:
    """The folder, which is there from now on."""
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def _raise_file_limit() -> None:
    """As many connections as the system allows, for this process and those it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
