"""What each tenant has been served, shared between the routers of a pool.

Each router adds the work that it charged to totals that all of them see, and charges what the totals say beyond that:
others' work. It counts from the last total that it saw. Where totals were emptied, which their epoch tells, it counts
from nothing; where one has fallen all the same, from there. Neither charges or credits anybody wrongly. Corrections
downwards have a total of their own, so that neither of the two falls by itself.

Requests wait for none of this. While the totals are away a router goes on with its own counters, and keeps what it has
to add. A batch that broke off half-way counts as added: the others may miss half a second of one router's work, but
nobody pays twice.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from tempo_core.admission import Shares

log = logging.getLogger(__name__)

INTERVAL_S: Final = 0.5
AT_ONCE: Final = 250
"""Of so many tenants at most work is added, or totals are read, at a time: some milliseconds of the event loop."""
_REMEMBERED: Final = 20_000
"""Totals; two for each of the tenants that `Shares` remembers."""


class TotalsError(Exception):
    """The totals can't be had now; a later call may succeed."""


class Reading(NamedTuple):
    """What the totals were at one time."""

    epoch: float | None
    """Another one, if they were emptied since the last reading."""
    totals: Mapping[bytes, float]
    """Those that were asked for, without those that there are not."""


class Totals(Protocol):
    """Sums that all routers of a pool add to. Every call returns within a few seconds."""

    async def ping(self) -> None:
        """Whether they are there.

        Raises:
            TotalsError: if not; nothing was added.

        """
        ...

    async def add(self, work: Mapping[bytes, float], read: Sequence[bytes]) -> Reading:
        """Add to some sums, to none less than nothing, and say how high those in `read` are then.

        Raises:
            TotalsError: if that isn't known; the work may have been added.

        """
        ...

    async def close(self) -> None:
        """Let go of what is held open. Never raises."""
        ...


class Ledger:
    """How much of each total is accounted for here, because it was added here or charged."""

    def __init__(self) -> None:
        self._epoch: float | None = None
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._added: OrderedDict[bytes, float] = OrderedDict()  # since totals were last read

    def adds(self, work: Mapping[bytes, float]) -> None:
        """So much goes from here into totals."""
        for member, tokens in work.items():
            _put(self._added, member, self._added.get(member, 0.0) + tokens)

    def news(self, reading: Reading) -> dict[bytes, float]:
        """How much of each total is not accounted for yet; it is from now on."""
        if reading.epoch != self._epoch:
            self._epoch = reading.epoch
            self._known.clear()
        for member, tokens in self._added.items():
            _put(self._known, member, self._known.get(member, 0.0) + tokens)
        self._added.clear()
        return {member: self._catch_up(member, total) for member, total in reading.totals.items()}

    def _catch_up(self, member: bytes, total: float) -> float:
        known = self._known.get(member, 0.0)
        _put(self._known, member, total)
        return max(total - known, 0.0)


class Exchange:
    """Keeps the shares of one router in step with those of the others.

    Args:
        totals: what the routers have in common.
        shares: this router's.

    """

    def __init__(self, totals: Totals, shares: Shares) -> None:
        self.shared: bool | None = None
        """Whether the last exchange succeeded; None before the first."""
        self._totals = totals
        self._shares = shares
        self._ledger = Ledger()

    async def watch(self, *, interval_s: float = INTERVAL_S) -> None:
        """Exchange until cancelled."""
        try:
            while True:
                await self.exchange()
                await asyncio.sleep(interval_s)
        finally:
            await self._totals.close()

    async def exchange(self) -> None:
        """Add what was charged here, charge what was added elsewhere; one failure in a row is logged once."""
        try:
            await self._exchange()
        except TotalsError as error:
            if self.shared is not False:
                log.warning("Tenants' shares hold per router until the totals are to be had: %s", error)
            self.shared = False
        else:
            if self.shared is False:
                log.info("Tenants' shares hold over all routers again.")
            self.shared = True

    async def _exchange(self) -> None:
        await self._totals.ping()  # nothing is taken out of the shares for totals that are not there
        served, tenants = self._shares.drain(AT_ONCE), self._shares.lately(AT_ONCE)
        if not tenants:
            return
        work = {_members(tenant)[tokens < 0.0]: abs(tokens) for tenant, tokens in served.items()}
        self._ledger.adds(work)
        news = self._ledger.news(await self._totals.add(work, [m for tenant in tenants for m in _members(tenant)]))
        for tenant in tenants:
            more, less = (news.get(member, 0.0) for member in _members(tenant))
            if more != less:
                self._shares.charge(tenant, more - less)


def open_totals(url: str, pool: str) -> Totals:
    """The totals of a pool in a Redis; it is not asked yet.

    Raises:
        ValueError: if the URL is none, or Redis support is not installed.

    """
    try:
        from tempo_router.tenants_redis import RedisTotals  # noqa: PLC0415  # its client is an extra
    except ImportError as error:
        raise ValueError("Sharing through Redis needs its client: pip install 'tempo-serving[redis]'.") from error
    try:
        return RedisTotals(url, pool)
    except ValueError:
        # The reason may quote a part of the password.
        hint = "write one such as redis://:PASSWORD@HOST:6379/0, with special characters percent-encoded"
        raise ValueError(f"That is no Redis URL; {hint}.") from None


def _put(book: OrderedDict[bytes, float], member: bytes, tokens: float) -> None:
    """Write it in; who was written in longest ago goes, if that is one too many."""
    book[member] = tokens
    book.move_to_end(member)
    if len(book) > _REMEMBERED:
        book.popitem(last=False)


def _members(tenant: str) -> tuple[bytes, bytes]:
    """What the totals of a tenant are called: of what it was charged, and of corrections downwards."""
    name = tenant.encode("utf-8", "surrogatepass")  # Python has what is no text in a header as surrogates
    return b"+" + name, b"-" + name
