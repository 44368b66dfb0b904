"""A trace file as text: plain or gzip, line by line, each line bounded."""

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from math import inf
from pathlib import Path
from typing import Final, cast

from tempo_sim.traces.errors import TraceError

MAX_LINE_BYTES: Final = 1 << 24
"""No format here has longer lines; a file that does is another kind of file."""

MAX_LENGTH: Final = 99_999_999
"""More tokens or characters than any call has; what is longer is a mistake, and would fill memory with blocks."""

_GZIP: Final = b"\x1f\x8b"


@dataclass(slots=True)
class Lines:
    """The lines of a file without their ends, and where the reading is."""

    path: Path
    _file: BufferedReader
    line: int = 0

    def __iter__(self) -> Iterator[str]:
        while data := self._read():
            self.line += 1
            if len(data) > MAX_LINE_BYTES:
                raise self.error(f"is longer than {MAX_LINE_BYTES} bytes; is this a trace?")
            try:
                yield data.decode("utf-8-sig" if self.line == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise self.error("is not UTF-8 text; write the trace as UTF-8, plain or gzip") from None

    def error(self, problem: str, field: str = "") -> TraceError:
        """What is wrong at the line that was read last."""
        return TraceError(self.path, problem, line=self.line, field=field)

    def _read(self) -> bytes:
        try:
            return self._file.readline(MAX_LINE_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise TraceError(self.path, f"can't be read on: {error}", line=self.line + 1) from error


@contextmanager
def open_lines(path: Path) -> Iterator[Lines]:
    """The lines of a file, which is gzip if it starts like one, whatever its name."""
    try:
        plain = path.open("rb")
    except OSError as error:
        raise TraceError(path, f"can't be opened: {error.strerror or error}") from error
    with plain:
        packed = plain.peek(2)[:2] == _GZIP
        yield Lines(path, cast("BufferedReader", gzip.GzipFile(fileobj=plain)) if packed else plain)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a CSV file with a header."""

    path: Path
    line: int
    cells: Mapping[str, str]

    def text(self, field: str) -> str:
        """A field as it stands there."""
        try:
            return self.cells[field]
        except KeyError:
            raise self.error(field, f"is not a column; the header has {', '.join(self.cells)}") from None

    def whole(self, field: str) -> int:
        """A length: a whole number, 0 or more."""
        text = self.text(field)
        if text.isdecimal() and len(text) <= len(str(MAX_LENGTH)):
            return int(text)
        raise self.error(field, f"{text[:40]!r} is not a whole number from 0 to {MAX_LENGTH}")

    def seconds(self, field: str) -> float:
        """A time, 0 or more."""
        text = self.text(field)
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if 0.0 <= number < inf:
            return number
        raise self.error(field, f"{text[:40]!r} is not a number of seconds of 0 or more")

    def error(self, field: str, problem: str) -> TraceError:
        """What is wrong with a field of this row."""
        return TraceError(self.path, problem, line=self.line, field=field)


def csv_rows(lines: Lines) -> Iterator[Row]:
    """The rows below the header, which the first line holds; empty lines are passed over."""
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
        for cells in reader:
            if cells and len(cells) != len(header):
                raise lines.error(f"has {len(cells)} fields where the header has {len(header)}")
            if cells:
                yield Row(lines.path, lines.line, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise lines.error(f"is not CSV: {error}") from error
