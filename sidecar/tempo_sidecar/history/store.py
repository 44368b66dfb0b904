"""Where graphs are kept: the interface, and its one error."""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Final, NamedTuple, Protocol

from tempo_core.graphs import Record

MAX_RECORDS: Final = 5_000
"""Graphs that a store keeps; beyond, those of the lowest rank go. Some 2 MB."""

_LONGEST_CLASS: Final = 256
_LONGEST_GRAPH: Final = 200


class HistoryError(Exception):
    """The store can't be used now. Nothing is lost but what it would have kept."""


class Loaded(NamedTuple):
    """What a store holds."""

    records: Sequence[Record]
    """The highest rank first."""
    unreadable: int
    """Rows that are no records."""


class HistoryStore(Protocol):
    """Graphs by their rank. Every call returns within a few seconds, whatever the store does.

    A graph's rank only rises, so where two nodes write the same graph the higher one is right.
    """

    async def load(self) -> Loaded:
        """What is kept.

        Raises:
            HistoryError: if the store can't be used now; a later call may succeed.

        """
        ...

    async def save(self, records: Sequence[Record]) -> None:
        """Keep these, each at the higher of its rank and the one that it is kept with.

        Raises:
            HistoryError: see `load`.

        """
        ...

    async def close(self) -> None:
        """Let go of what is held open. Never raises."""
        ...


def read(rows: Iterable[Sequence[object]]) -> Loaded:
    """The records among rows that anyone may have written; whether a graph is one shows when it is unpacked."""
    parsed = [_record(row) for row in rows]
    records = [record for record in parsed if record is not None]
    return Loaded(records, len(parsed) - len(records))


def _record(row: Sequence[object]) -> Record | None:
    match row:
        case (str(slo_class), bytes(graph), float(rank)) if isfinite(rank):
            whole = 0 < len(slo_class) <= _LONGEST_CLASS and len(graph) <= _LONGEST_GRAPH
            return Record(slo_class, graph, rank) if whole else None
    return None
