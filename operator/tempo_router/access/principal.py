"""What whoever asks may have."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tempo_api.intake import ANYTHING, Grant
from tempo_api.openai import APIError, Ending

ALL: Final = ""
"""Among ceilings and counts: requests of whatever class."""
_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Principal:
    """The holder of a key, or anybody; one object serves all requests."""

    grant: Grant = ANYTHING
    """For `tempo_api.intake.resolve`."""
    ceilings: Mapping[str, int] = field(default_factory=dict)
    """How many requests may be in flight, by class and in all."""
    in_flight: Counter[str] = field(default_factory=Counter)
    """How many are, by class and in all; a tenant's keys count together, or a second one would be a second share."""
    own_headers: frozenset[str] = frozenset()
    """Of the request, in lower case, and no business of the engine's: where a key is the router's."""

    def hold(self, slo_class: str = ALL) -> "Place":
        """A place for one request, in all or as one of a class; counts while it is entered.

        Raises:
            APIError: `OVER_CEILING`.

        """
        most, now = self.ceilings.get(slo_class), self.in_flight[slo_class]
        if most is not None and now >= most:
            which = f" of class {slo_class}" if slo_class else ""
            message = f"This API key's tenant has {now} requests{which} in flight; the key's ceiling is {most}."
            raise APIError(Ending.OVER_CEILING, message, retry_after_s=_RETRY_S)
        return Place(self.in_flight, slo_class)


class Place:
    """See `Principal.hold`; a generator would cost four times as much."""

    __slots__ = ("_in_flight", "_slo_class")

    def __init__(self, in_flight: Counter[str], slo_class: str) -> None:
        self._in_flight = in_flight
        self._slo_class = slo_class

    def __enter__(self) -> None:
        self._in_flight[self._slo_class] += 1

    def __exit__(self, *_: object) -> None:
        self._in_flight[self._slo_class] -= 1


ANYBODY: Final = Principal()
"""Where no keys are asked for."""
