"""A stand-in replica that can be made to fail.

    python -m tempo_bench.routers.faulty PORT MODEL

It answers as the instant backend does, but takes the time that an engine takes for its first byte. `POST /mood` with a
`Mood` as JSON says how it fares from then on; what it says of itself stays the same, as a sidecar's does whose engine
alone is at fault.
"""

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
import uvloop

from tempo_api.state import HEARTBEAT_S, EngineState, encode_state
from tempo_bench.routers.backend import Answers, Backend
from tempo_bench.routers.wire import http_chunk

FIRST_S: Final = 0.05
"""Until the first byte of an answer, of a whole one and of a stream alike."""
_STATE: Final = http_chunk(encode_state(EngineState(ready=True, places=32)))
_BODY: Final = b'{"error": {"message": "The engine is ill.", "type": "server_error", "param": null, "code": null}}'
_REFUSAL: Final = b"HTTP/1.1 %d Ill\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
_DONE: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class Mood(msgspec.Struct, frozen=True):
    """How a replica fares."""

    slow: float = 1.0
    """Times the usual time for everything."""
    status: int = 0
    """Of every answer; 0: a good one."""
    mute: bool = False
    """Takes requests, and answers them once it is no longer."""


class Patient:
    """What the connections of one replica share."""

    def __init__(self) -> None:
        self.mood = Mood()
        self.unanswered: list[Callable[[], None]] = []

    def turn(self, mood: Mood) -> None:
        """Fare like that from now on; one that speaks again answers what it was asked before."""
        self.mood, unanswered = mood, self.unanswered
        self.unanswered = []
        for answer in unanswered:
            answer()


class Faulty(Backend):
    """One connection."""

    def __init__(self, answers: Answers, patient: Patient) -> None:
        super().__init__(answers)
        self._patient = patient

    def _complete(self, head: bytes, body: bytes) -> None:
        mood = self._patient.mood
        if b"POST /mood " in head:
            self._patient.turn(msgspec.json.decode(body, type=Mood))
            self._write(_DONE)
        elif mood.mute:
            self._patient.unanswered.append(partial(self._complete, head, body))
        elif mood.status:
            self._write(_REFUSAL % (mood.status, len(_BODY), _BODY))
        else:
            self._loop.call_later(FIRST_S * mood.slow, self._answer, body)

    def _answer(self, body: bytes) -> None:
        super()._complete(b"", body)

    def _stream(self, left: int, gap_s: float) -> None:
        if self._transport is not None:
            self._transport.write(self._answers.chunk if left else self._answers.end)
        if left and self._transport is not None:
            self._loop.call_later(gap_s * self._patient.mood.slow, self._stream, left - 1, gap_s)

    def _beat(self) -> None:
        if self._transport is not None:
            self._transport.write(_STATE)
            self._loop.call_later(HEARTBEAT_S, self._beat)


async def serve(port: int, model: str) -> None:
    """Serve until cancelled."""
    answers, patient = Answers(model), Patient()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Faulty(answers, patient), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
