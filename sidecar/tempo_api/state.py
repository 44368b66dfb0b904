"""What a sidecar tells routers of its replica, as a stream: `GET /engine/state`, a line of JSON for each change.

Lines are whole: each says everything, so that only the latest counts and a reader may skip the others. Versions differ
in a rolling update, so fields that are not known are ignored, and those that are missing have a value that claims
nothing.
"""

from typing import Annotated, Final

import msgspec

from tempo_core.steptime import StepTime

STATE_PATH: Final = "/engine/state"
STATE_TYPE: Final = "application/x-ndjson"
HEARTBEAT_S: Final = 0.25
"""A line comes at least so often; who hears none for several of these hears nothing of the replica."""
LONGEST_LINE: Final = 16 << 10

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
_Rate = Annotated[float, msgspec.Meta(ge=0.0)]


class EngineState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One replica at one moment."""

    seq: _Count = 0
    """Counts the lines of one stream."""
    ready: bool = False
    """Takes requests: the engine is healthy, and nothing is being drained."""
    draining: bool = False
    """Finishes what it has, and will be gone."""
    in_flight: _Count = 0
    """Requests at the sidecar, of all routers."""
    running: _Count = 0
    """Requests in the engine's batch."""
    waiting: _Count = 0
    """Requests that wait in the engine."""
    places: _Count = 0
    """Requests that the engine runs together; 0: unknown."""
    ranks: bool = False
    """The engine's queue is ordered by what waiting loses: it is better at it the more it has to choose from."""
    cache_used: _Share = 0.0
    """Share of the key-value cache's blocks that requests hold."""
    tokens_per_s: _Rate = 0.0
    """Output tokens of late, while there was something to do."""
    step_time: StepTime | None = None
    """How long the engine's steps take; None: unknown."""


_decoder: Final = msgspec.json.Decoder(EngineState)


def encode_state(state: EngineState) -> bytes:
    """A line of the stream."""
    return msgspec.json.encode(state) + b"\n"


def decode_state(line: bytes) -> EngineState:
    """The reverse of `encode_state`.

    Raises:
        ValueError: for anything else.

    """
    return _decoder.decode(line)
