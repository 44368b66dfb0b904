"""Graphs in a Redis that several nodes share.

One sorted set: a member is a class and a graph, its score is the rank. Redis then does in single commands what is
needed: the higher rank of two wins, the lowest ranks go, the highest come first.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tempo_core.graphs import Record
from tempo_sidecar.history.store import MAX_RECORDS, HistoryError, Loaded, read

_SCHEMA: Final = 1
_KEPT_S: Final = 30 * 86_400
"""A set that nobody writes goes after so long."""

_Member = tuple[str, bytes]
_T = TypeVar("_T")


class RedisStore:
    """A `HistoryStore` in Redis 6.2 or later.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with credentials if need be.
        pool: whose graphs these are; lengths depend on the model that a pool serves.
        max_records: see `MAX_RECORDS`.
        timeout_s: of a call.

    Raises:
        ValueError: if `url` is none.

    """

    def __init__(self, url: str, pool: str, *, max_records: int = MAX_RECORDS, timeout_s: float = 2.0) -> None:
        self._key = f"tempo:graphs:v{_SCHEMA}:{pool}"
        self._max_records = max_records
        self._timeout_s = timeout_s
        self._redis: Redis = Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)

    async def load(self) -> Loaded:
        """See `HistoryStore`."""
        pairs = await self._call(self._redis.zrange(self._key, 0, self._max_records - 1, desc=True, withscores=True))
        return read(_rows(pairs))

    async def save(self, records: Sequence[Record]) -> None:
        """See `HistoryStore`."""
        if not records:
            return
        ranks = {msgspec.msgpack.encode((record.slo_class, record.graph)): record.rank for record in records}
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.zadd(self._key, ranks, gt=True)
            pipeline.zremrangebyrank(self._key, 0, -self._max_records - 1)
            pipeline.expire(self._key, _KEPT_S)
            await self._call(pipeline.execute())

    async def close(self) -> None:
        """See `HistoryStore`."""
        await self._redis.aclose()

    async def _call(self, reply: Awaitable[_T]) -> _T:
        try:
            return await asyncio.wait_for(reply, self._timeout_s)
        except (RedisError, OSError, TimeoutError) as error:
            raise HistoryError(f"Redis: {str(error) or 'no answer'}") from error


def _rows(pairs: Iterable[Sequence[Any]]) -> Iterable[Sequence[object]]:
    for member, rank in pairs:
        try:
            yield *msgspec.msgpack.decode(member, type=_Member), rank
        except msgspec.DecodeError:
            yield ()
