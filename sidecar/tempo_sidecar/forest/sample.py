"""The completions that the forest learns from: a bounded sample in which the latest are the likeliest.

Each completion enters, and when the sample is full takes the place of a random one of the class that has most. So of
a class's completions one survives n later ones with probability exp(-n / places): recency is weighted exponentially
without a weight or a clock, and no class can crowd out another. (Aggarwal, "On biased reservoir sampling", VLDB 2006.)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tempo_sidecar.forest.features import CLASS, LAYOUT, WIDTH, Row

CAPACITY: Final = 4096
_CLASSES: Final = 64
_LONGEST: Final = float(1 << 24)
_MAGIC: Final = "tempo length sample"


@dataclass(frozen=True, slots=True)
class Records:
    """Completions, oldest first: features (n, WIDTH), output tokens (n,), whether they were cut by a cap (n,)."""

    classes: tuple[str, ...]
    """Named by their number in the rows' `CLASS` column."""
    rows: NDArray[np.float32]
    tokens: NDArray[np.float32]
    truncated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tokens)


class _Encoded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    magic: str
    layout: int
    classes: list[str]
    rows: bytes
    tokens: bytes
    truncated: bytes


def encode_records(records: Records) -> bytes:
    """`records` for another process or the disk."""
    return msgspec.msgpack.encode(
        _Encoded(
            _MAGIC,
            LAYOUT,
            list(records.classes),
            records.rows.astype("<f4").tobytes(),
            records.tokens.astype("<f4").tobytes(),
            records.truncated.astype("u1").tobytes(),
        )
    )


def decode_records(data: bytes) -> Records:
    """The reverse of `encode_records`; nothing in `data` is trusted.

    Raises:
        ValueError: for anything else.

    """
    encoded = msgspec.msgpack.decode(data, type=_Encoded)
    if (encoded.magic, encoded.layout) != (_MAGIC, LAYOUT):
        raise ValueError("it is no sample of this version")
    tokens = np.frombuffer(encoded.tokens, "<f4").astype(np.float32)
    rows = np.frombuffer(encoded.rows, "<f4").astype(np.float32).reshape(len(tokens), WIDTH)
    truncated = np.frombuffer(encoded.truncated, "u1")
    codes = rows[:, CLASS]
    sound = (
        len(truncated) == len(tokens)
        and bool(np.isfinite(rows).all() and (truncated <= 1).all())
        and bool(((tokens >= 1.0) & (tokens <= _LONGEST)).all())
        and bool(((codes >= 0) & (codes < len(encoded.classes)) & (codes == np.floor(codes))).all())
        and len(set(encoded.classes)) == len(encoded.classes) <= _CLASSES
    )
    if not sound:
        raise ValueError("its columns do not fit together")
    return Records(tuple(encoded.classes), rows, tokens, truncated.astype(np.bool_))


class Sample:
    """Collects completions.

    Args:
        rng: chooses what is forgotten.
        capacity: completions remembered, of all classes together.

    """

    def __init__(self, rng: np.random.Generator, capacity: int = CAPACITY) -> None:
        self._rng = rng
        self._rows = np.zeros((capacity, WIDTH), dtype=np.float32)
        self._tokens = np.zeros(capacity, dtype=np.float32)
        self._truncated = np.zeros(capacity, dtype=np.bool_)
        self._order = np.zeros(capacity, dtype=np.int64)
        self._codes: dict[str, int] = {}
        self._places: list[list[int]] = []  # of each class, in no order
        self._size = 0
        self.seen = 0
        """Completions so far, forgotten ones included."""

    def __len__(self) -> int:
        return self._size

    @property
    def codes(self) -> Mapping[str, int]:
        """The number of each class that was seen; it never changes."""
        return self._codes

    def add(self, slo_class: str, row: Row, output_tokens: float, *, truncated: bool) -> None:
        """A completion. `row` is copied. More classes than any pool has are ignored."""
        if slo_class not in self._codes:
            if len(self._codes) == _CLASSES:
                return
            self._codes[slo_class] = len(self._places)
            self._places.append([])
        code = self._codes[slo_class]
        place = self._place()
        self._places[code].append(place)
        self._rows[place] = row
        self._rows[place, CLASS] = code
        self._tokens[place] = min(max(output_tokens, 1.0), _LONGEST)
        self._truncated[place] = truncated
        self._order[place] = self.seen
        self.seen += 1

    def records(self) -> Records:
        """A copy of all that is remembered."""
        order = np.argsort(self._order[: self._size])
        return Records(tuple(self._codes), self._rows[order], self._tokens[order], self._truncated[order])

    def restore(self, records: Records) -> None:
        """Take over what another sample remembered, as if it had completed here."""
        for row, tokens, truncated in zip(records.rows, records.tokens, records.truncated, strict=True):
            self.add(records.classes[int(row[CLASS])], row, float(tokens), truncated=bool(truncated))

    def _place(self) -> int:
        """Where the next completion goes: free, or freed."""
        if self._size < len(self._tokens):
            self._size += 1
            return self._size - 1
        most = max(self._places, key=len)
        one = int(self._rng.integers(len(most)))
        most[one], most[-1] = most[-1], most[one]
        return most.pop()
