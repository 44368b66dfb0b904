"""Names on the wire, and the two forms in which a request's facts travel.

client -> router    public headers, many spellings (`HEADERS`)
router -> sidecar   one internal header, `INTAKE_HEADER`, holding an `Intake` as JSON; relative times only, because
                    two nodes' clocks differ
sidecar -> engine   flat `vllm_xargs` (`Facts`); absolute times, because sidecar and engine share a clock

A client's own `vllm_xargs` under the reserved prefix, and an intake header from outside, are stripped.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

import msgspec

from tempo_core.lengths import valid_grid

PREFIX: Final = "tempo_"
INTAKE_HEADER: Final = "x-tempo-intake"

CLASS_HEADER: Final = "x-tempo-slo-class"
"""Of a request, the class asked for; of its answer, the class that it was served as."""
CLASS_HEADERS: Final = (CLASS_HEADER, "x-llm-d-inference-objective", "x-gateway-inference-objective")
TTFT_HEADERS: Final = ("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
TBT_HEADERS: Final = ("x-llm-d-slo-tpot-ms", "x-slo-tpot-ms")
DEADLINE_HEADER: Final = "x-tempo-deadline-ms"
TENANT_HEADERS: Final = ("x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id")
PROGRAM_HEADER: Final = "x-tempo-program-id"
SESSION_HEADERS: Final = ("x-claude-code-session-id", "x-session-id", "x-session-affinity", "session-id")
STAGE_HEADER: Final = "x-tempo-stage"
PROGRAM_DEADLINE_HEADER: Final = "x-tempo-program-deadline-ms"
FINAL_HEADER: Final = "x-tempo-program-final"

QUEUE_HEADER: Final = "x-tempo-queue-ms"
REPLICA_HEADER: Final = "x-tempo-replica"
DROPPED_HEADER: Final = "x-tempo-dropped-reason"
DEGRADED_HEADER: Final = "x-tempo-degraded"


class Intake(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the router made of a request. Times are seconds, counted back or forward from its arrival."""

    slo_class: str
    elapsed_s: float = 0.0
    """How long ago the request arrived at the router."""
    ttft_s: float | None = None
    """A looser target that the caller gave; None: the class's own."""
    tbt_s: float | None = None
    deadline_s: float | None = None
    """From arrival to this call's (sub-)deadline; None: none."""
    program: str | None = None
    stage: int = 0
    program_elapsed_s: float = 0.0
    """How long before this call its program arrived."""
    final: bool = False
    """No call of the program follows once those in flight have ended."""
    banked_gain: float = 0.0
    """What the program's finished calls have at stake."""
    latest_s: float | None = None
    """From arrival until when this call may end for its program to be in time; None: `deadline_s`."""
    later_prompt_tokens: float = 0.0
    """Expected of the program's later stages, all calls."""
    later_output_tokens: float = 0.0
    tools: bool = False
    """Whether the program runs tools between its stages."""
    tenant: str = ""
    degraded: bool = False
    """It waited at the router for longer than its class allows, and goes on without a promise."""


def encode_intake(intake: Intake) -> str:
    """The value of `INTAKE_HEADER`; plain ASCII, as headers must be."""
    encoded = msgspec.json.encode(intake)
    if encoded.isascii():
        return encoded.decode()
    return json.dumps(msgspec.to_builtins(intake), separators=(",", ":"))


def decode_intake(value: str) -> Intake:
    """The reverse of `encode_intake`.

    Raises:
        ValueError: for anything else.

    """
    return msgspec.json.decode(value, type=Intake)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the engine is told of a request. Times are absolute seconds (epoch), durations seconds."""

    slo_class: str | None = None
    arrival_s: float | None = None
    ttft_s: float | None = None
    tbt_s: float | None = None
    deadline_s: float | None = None
    lengths: tuple[float, ...] | None = None
    """Quantiles of the output length at `tempo_core.lengths.GRID`."""
    program: str | None = None
    program_arrival_s: float | None = None
    banked_gain: float | None = None
    latest_s: float | None = None
    later_prompt_tokens: float | None = None
    later_output_tokens: float | None = None
    tools: float | None = None
    """1 where the program runs tools between its stages."""
    tenant: str | None = None
    degraded: float | None = None
    """1 where the router took its promise from it; see `Intake`."""


_TEXT: Final = ("slo_class", "program", "tenant")
_NUMBERS: Final = (
    "arrival_s", "ttft_s", "tbt_s", "deadline_s", "program_arrival_s", "banked_gain",
    "latest_s", "later_prompt_tokens", "later_output_tokens", "tools", "degraded",
)  # fmt: skip
_KEYS: Final = tuple((name, PREFIX + name) for name in (*_TEXT, *_NUMBERS))
_LONGEST_TEXT: Final = 256


def encode_facts(facts: Facts) -> dict[str, Any]:
    """`facts` as entries of `vllm_xargs`: flat, absent where unknown."""
    xargs: dict[str, Any] = {key: value for name, key in _KEYS if (value := getattr(facts, name)) is not None}
    if facts.lengths is not None:
        xargs[PREFIX + "lengths"] = list(facts.lengths)
    return xargs


def decode_facts(xargs: Mapping[str, Any] | None) -> tuple[Facts, list[str]]:
    """The facts among an engine request's extra arguments, and the names of those that are malformed.

    Never raises: whatever does not parse is left out and named, for the caller to count.
    """
    if not xargs:
        return Facts(), []
    good: dict[str, Any] = {}
    bad: list[str] = []
    for key, value in xargs.items():
        if not key.startswith(PREFIX):
            continue
        name = key[len(PREFIX) :]
        parsed = _parse(name, value)
        if parsed is None:
            bad.append(name)
        else:
            good[name] = parsed
    return Facts(**good), bad


def strip_reserved(xargs: Mapping[str, Any]) -> dict[str, Any]:
    """A client's extra arguments without those that only Tempo may set."""
    return {key: value for key, value in xargs.items() if not key.startswith(PREFIX)}


def _parse(name: str, value: object) -> object | None:
    if name in _TEXT:
        return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_TEXT else None
    if name in _NUMBERS:
        return _number(value)
    if name == "lengths" and isinstance(value, list | tuple):
        numbers = [_number(item) for item in value]
        if None not in numbers and valid_grid(grid := [number for number in numbers if number is not None]):
            return tuple(grid)
    return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond any float
        return None
    return number if isfinite(number) and number >= 0 else None
