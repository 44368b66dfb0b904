"""Starting the processes of a comparison, and what they use."""

import asyncio
import random
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tempo_bench.pool import PoolError
from tempo_bench.routers.load import HOST, connections, send
from tempo_bench.routers.requests import Requests, Shape

_STOP_S: Final = 15.0
_LOOK_EVERY_S: Final = 0.25
_MIB: Final = 2**20
_PORTS: Final = range(10_000, 32_000)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used: CPU in seconds since they began, resident memory as it is."""

    cpu_s: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Running:
    """A process that has been started."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def usage(self) -> Usage:
        """What it uses, children included.

        Raises:
            PoolError: if it has ended.

        """
        if self.process.poll() is not None:
            raise PoolError(f"{self.name} has ended:\n{self.tail()}")
        try:
            root = psutil.Process(self.process.pid)
            tree = [root, *root.children(recursive=True)]
            times = [process.cpu_times() for process in tree]
            memory = sum(process.memory_info().rss for process in tree)
        except psutil.NoSuchProcess as error:
            raise PoolError(f"{self.name} has ended:\n{self.tail()}") from error
        return Usage(sum(spent.user + spent.system for spent in times), memory / _MIB)

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


@contextmanager
def started(name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Iterator[Running]:
    """Run a command with this environment and nothing else, in `folder`, where its log goes too.

    Raises:
        PoolError: if there is no such program.

    """
    log_path = folder / "log"
    with log_path.open("wb") as log:
        try:
            process = subprocess.Popen(  # noqa: S603
                command, env=dict(environment), cwd=folder, stdout=log, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise PoolError(f"{name} can't be started: {error}") from error
        try:
            yield Running(name, process, log_path)
        finally:
            _stop(process)


async def until_it_answers(running: Running, port: int, model: str, patience_s: float) -> None:
    """Wait for the first good answer to a chat completion through it.

    Raises:
        PoolError: if it ends, or there is none in time.

    """
    requests = Requests(Shape(), model)
    try:
        async with asyncio.timeout(patience_s):
            while running.process.poll() is None:
                try:
                    async with connections(port, 1) as opened:
                        answers = (await send(opened, requests, seconds=1.0, most=1)).latencies_s
                    if answers and running.process.poll() is None:
                        return
                except OSError:
                    pass  # not listening yet
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        pass
    raise PoolError(f"{running.name} did not answer:\n{running.tail()}")


def free_ports(count: int) -> list[int]:
    """Different ports that nobody has.

    They are below those that the system gives to connections, of which this benchmark opens thousands: one could take
    a port before its router does.
    """
    candidates = iter(random.sample(_PORTS, len(_PORTS)))
    found: list[int] = []
    while len(found) < count:
        port = next(candidates)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
    return found


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
