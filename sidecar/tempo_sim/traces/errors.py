"""The one error of reading traces."""

from pathlib import Path


class TraceError(ValueError):
    """A trace that can't be read; its text is one line: file, line, field, what is wrong and what to write instead."""

    def __init__(self, path: Path, problem: str, *, line: int | None = None, field: str = "") -> None:
        where = str(path) if line is None else f"{path}:{line}"
        super().__init__(": ".join(part for part in (where, field, problem) if part))
