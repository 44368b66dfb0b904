"""Which store a setting names."""

from pathlib import Path

from tempo_sidecar.history.sqlite_store import SqliteStore
from tempo_sidecar.history.store import HistoryStore

_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


def open_store(location: str, pool: str) -> HistoryStore:
    """The store at a Redis URL, or in the file at a path; nothing is opened yet.

    Raises:
        ValueError: if the URL is none, or Redis support is not installed.

    """
    if not location.startswith(_REDIS_SCHEMES):
        return SqliteStore(Path(location))
    try:
        from tempo_sidecar.history.redis_store import RedisStore  # noqa: PLC0415  # its client is an extra
    except ImportError as error:
        raise ValueError("A history in Redis needs its client: pip install 'tempo-serving[redis]'.") from error
    return RedisStore(location, pool)
