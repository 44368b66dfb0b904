"""Graphs in a SQLite file on the node."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

from tempo_core.graphs import Record
from tempo_sidecar.history.store import MAX_RECORDS, HistoryError, Loaded, read

_SCHEMA: Final = 1
_BUSY_S: Final = 1.0
"""How long to wait for another process that writes."""
_TABLE: Final = """
    CREATE TABLE tempo_graphs (
        slo_class TEXT NOT NULL, graph BLOB NOT NULL, rank REAL NOT NULL, PRIMARY KEY (slo_class, graph)
    ) WITHOUT ROWID
"""
_LOAD: Final = "SELECT slo_class, graph, rank FROM tempo_graphs ORDER BY rank DESC LIMIT ?"
_SAVE: Final = """
    INSERT INTO tempo_graphs VALUES (?, ?, ?)
    ON CONFLICT (slo_class, graph) DO UPDATE SET rank = max(rank, excluded.rank)
"""
_TRIM: Final = """
    DELETE FROM tempo_graphs WHERE (slo_class, graph) IN (
        SELECT slo_class, graph FROM tempo_graphs ORDER BY rank DESC LIMIT -1 OFFSET ?
    )
"""
_NO_DATABASE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

_T = TypeVar("_T")


class SqliteStore:
    """A `HistoryStore` in a file, opened for each call, in a thread.

    A file of another schema begins anew; one that is no database, or is damaged, is moved aside, with `.unreadable`
    added to its name.

    Args:
        path: of the file; its folder is made if need be.
        max_records: see `MAX_RECORDS`.
        timeout_s: of a call.

    """

    def __init__(self, path: Path, *, max_records: int = MAX_RECORDS, timeout_s: float = 5.0) -> None:
        self._path = path
        self._max_records = max_records
        self._timeout_s = timeout_s

    async def load(self) -> Loaded:
        """See `HistoryStore`."""
        rows = await self._call(lambda connection: connection.execute(_LOAD, (self._max_records,)).fetchall())
        return read(rows)

    async def save(self, records: Sequence[Record]) -> None:
        """See `HistoryStore`."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(_SAVE, records)
            connection.execute(_TRIM, (self._max_records,))

        await self._call(work)

    async def close(self) -> None:
        """See `HistoryStore`; nothing is held open."""

    async def _call(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return await asyncio.wait_for(asyncio.to_thread(self._in_thread, work), self._timeout_s)
        except TimeoutError as error:
            raise HistoryError(f"{self._path} did not answer within {self._timeout_s:g} s") from error

    def _in_thread(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """`work` in one transaction, with foreign errors translated."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                with connection:
                    _ensure_schema(connection)
                    return work(connection)
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", None) in _NO_DATABASE:
                self._path.replace(f"{self._path}.unreadable")
            raise HistoryError(f"{self._path}: {error}") from error


def _ensure_schema(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != _SCHEMA:
        connection.execute("DROP TABLE IF EXISTS tempo_graphs")
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA user_version = {_SCHEMA:d}")
