"""JSON lines, decoded strictly."""

import re
from collections.abc import Iterator
from typing import Final, TypeVar

import msgspec

from tempo_sim.traces.errors import TraceError
from tempo_sim.traces.text import Lines

T = TypeVar("T")

_PLACE: Final = re.compile(r" - at `\$\.?(.*)`$")


def decoded(lines: Lines, kind: type[T]) -> Iterator[T]:
    """Each line as a `kind`; empty lines are passed over."""
    decoder = msgspec.json.Decoder(kind)
    for line in lines:
        if line.strip():
            yield decode(lines, line, decoder)


def decode(lines: Lines, line: str, decoder: msgspec.json.Decoder[T]) -> T:
    """One line.

    Raises:
        TraceError: naming the field.

    """
    try:
        return decoder.decode(line)
    except msgspec.ValidationError as error:
        raise _translated(lines, str(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise lines.error(f"is not a JSON object: {error}") from None


def _translated(lines: Lines, text: str) -> TraceError:
    place = _PLACE.search(text)
    problem = _PLACE.sub("", text)
    return lines.error(problem[:1].lower() + problem[1:], place[1] if place else "")
