"""The totals of a pool's tenants, in a Redis that its routers share.

One sorted set: a member is a tenant, its score what the tenant was served. It lives for `KEPT_S`, whoever uses it, so
that a router which starts, or meets a tenant for the first time, charges for the last minute and not for all times.
One more member, higher than any tenant's, has a random score from the set's beginning on: its epoch.
"""

import asyncio
import random
from collections.abc import Awaitable, Mapping, Sequence
from math import isfinite
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tempo_router.tenants import Reading, TotalsError

KEPT_S: Final = 60
MAX_MEMBERS: Final = 10_000
"""Beyond, those that were served least go."""
_SCHEMA: Final = 1
_EPOCH: Final = b""
_ENDLESS: Final = -1
"""What `TTL` says."""

_T = TypeVar("_T")


class RedisTotals:
    """`Totals` in Redis 6.2 or later.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with credentials if need be.
        pool: whose tenants these are.
        max_members: see `MAX_MEMBERS`.
        kept_s: see `KEPT_S`; whole seconds.
        timeout_s: of a call.

    Raises:
        ValueError: if `url` is none.

    """

    def __init__(
        self, url: str, pool: str, *, max_members: int = MAX_MEMBERS, kept_s: int = KEPT_S, timeout_s: float = 1.0
    ) -> None:
        self._key = f"tempo:tenants:v{_SCHEMA}:{pool}"
        self._max_members = max_members
        self._kept_s = kept_s
        self._timeout_s = timeout_s
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),  # what is sent again may be added twice
        )

    async def ping(self) -> None:
        """See `Totals`."""
        await self._call(self._redis.ping())

    async def add(self, work: Mapping[bytes, float], read: Sequence[bytes]) -> Reading:
        """See `Totals`."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.zadd(self._key, {_EPOCH: random.randrange(1 << 52, 1 << 53)}, nx=True)  # noqa: S311  # no secret
            for member, tokens in work.items():
                pipeline.zincrby(self._key, tokens, member)
            pipeline.zremrangebyrank(self._key, 0, -self._max_members - 1)
            pipeline.ttl(self._key)
            pipeline.zmscore(self._key, [_EPOCH, *read])  # type: ignore[list-item]  # bytes will do
            *_, left_s, (epoch, *totals) = await self._call(pipeline.execute())
        if left_s == _ENDLESS:  # it is new
            await self._call(self._redis.expire(self._key, self._kept_s))
        found = zip(read, totals, strict=True)
        return Reading(epoch, {member: total for member, total in found if total is not None and isfinite(total)})

    async def close(self) -> None:
        """See `Totals`."""
        await self._redis.aclose()

    async def _call(self, reply: Awaitable[Any]) -> Any:
        try:
            return await asyncio.wait_for(reply, self._timeout_s)
        except (RedisError, OSError, TimeoutError) as error:
            raise TotalsError(f"Redis: {str(error) or 'no answer'}") from error
