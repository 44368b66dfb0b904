"""Durations as Kubernetes writes them: `100ms`, `2s`, `1m30s`, `2h`."""

import re
from typing import Final

_UNIT_S: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)")
DURATION_PATTERN: Final = r"^([0-9]+(\.[0-9]+)?(us|ms|s|m|h))+$"
"""The same as one pattern, for schemas."""


def parse_duration(text: str) -> float:
    """Seconds of `text`.

    Raises:
        ValueError: with what is wrong and an example.

    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, such as 100ms, 2s or 1m30s")
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
