"""Stand-in replicas as processes of their own, and the ways in which they are made to fail and healed again."""

import asyncio
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from tempo_bench.routers.faulty import Mood
from tempo_bench.routers.lineup import MODEL, clean_environment, made
from tempo_bench.routers.load import HOST
from tempo_bench.routers.processes import Running, started, until_it_answers

KILLED: Final = "killed"
STOPPED: Final = "stopped"
PAUSED: Final = "paused"
PAUSE_S: Final = 3.0
MOODS: Final = {
    "mute": Mood(mute=True),
    "slow": Mood(slow=10.0),
    "500": Mood(status=500),
    "503": Mood(status=503),
}
FAULTS: Final = {
    KILLED: "SIGKILL, started again later",
    STOPPED: "SIGSTOP: takes connections and says nothing on any, of its state neither",
    PAUSED: f"the same for {PAUSE_S:g} seconds, as a process does that gets no CPU, and then goes on",
    "mute": "takes requests and answers none, but says that it is well",
    "slow": "ten times slower",
    "500": "answers 500 to everything",
    "503": "answers 503 to everything",
}
_START_S: Final = 60.0


class StandIn:
    """One replica.

    Args:
        name: what the router calls it.
        port: where it listens.
        folder: for its log.
        stack: stops its process at the end.

    """

    def __init__(self, name: str, port: int, folder: Path, stack: ExitStack) -> None:
        self.name = name
        self.url = f"http://{HOST}:{port}"
        self._port = port
        self._folder = made(folder / name)
        self._stack = stack
        self._running: Running

    async def start(self) -> None:
        """Run it, and wait until it answers.

        Raises:
            PoolError: if it does not.

        """
        command = [sys.executable, "-m", "tempo_bench.routers.faulty", str(self._port), MODEL]
        environment = clean_environment(self._folder)
        self._running = self._stack.enter_context(started(self.name, command, environment, self._folder))
        # Stopped, it would not hear that it is to end.
        self._stack.callback(self._running.process.send_signal, signal.SIGCONT)
        await until_it_answers(self._running, self._port, MODEL, _START_S)

    async def strike(self, fault: str) -> None:
        """Make it fail in one of the ways of `FAULTS`."""
        process = self._running.process
        if fault == KILLED:
            process.kill()
            process.wait()
        elif fault in (STOPPED, PAUSED):
            process.send_signal(signal.SIGSTOP)
            if fault == PAUSED:
                asyncio.get_running_loop().call_later(PAUSE_S, process.send_signal, signal.SIGCONT)
        else:
            await self._turn(MOODS[fault])

    async def heal(self, fault: str) -> None:
        """Undo that."""
        if fault == KILLED:
            await self.start()
        elif fault in (STOPPED, PAUSED):
            self._running.process.send_signal(signal.SIGCONT)
        else:
            await self._turn(Mood())

    async def _turn(self, mood: Mood) -> None:
        async with aiohttp.ClientSession() as session:
            await session.post(f"{self.url}/mood", data=msgspec.json.encode(mood))
