"""Which of several operators acts: the one whose name stands in a Lease.

kopf's peering pauses every replica when their priorities are equal, so it is off, and the Lease decides, by the rules
of client-go's leader election: what counts is when a record was *seen* to change on this process's own clock, never the
times that another one wrote into it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from tempo_operator.kinds import LEASE
from tempo_operator.kube import Document, Kube, KubeError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """How long what takes, in seconds. Another takes over at most `lease_s` + 1.2 `look_s` after a leader vanished."""

    lease_s: float = 20.0
    """A lease that nobody renewed for this long may be taken."""
    lead_s: float = 12.0
    """The leader stops acting when it could not renew for this long; what is under way then ends before `lease_s`."""
    renew_s: float = 5.0
    """How often the leader renews."""
    look_s: float = 3.0
    """How often the others look."""

    @classmethod
    def of(cls, lease_s: float) -> Self:
        """The same proportions for another length."""
        return cls(lease_s, 0.6 * lease_s, 0.25 * lease_s, 0.15 * lease_s)


class Candidate:
    """Remembers what it saw of a lease, and decides; pure.

    Args:
        identity: this process, unlike any other.
        terms: in seconds.

    """

    def __init__(self, identity: str, terms: Terms) -> None:
        self.identity = identity
        self._terms = terms
        self._seen: tuple[object, ...] = ()
        self._seen_s = 0.0

    def may_take(self, lease: Document | None, now_s: float) -> bool:
        """Whether the lease is this process's to write: its own, nobody's, or not renewed for long enough."""
        if lease is None:
            return True
        spec = lease.get("spec") or {}
        seen = (lease["metadata"].get("uid"), spec.get("holderIdentity"), spec.get("renewTime"))
        if seen != self._seen:
            self._seen, self._seen_s = seen, now_s
        if spec.get("holderIdentity") in {self.identity, "", None}:
            return True
        return now_s >= self._seen_s + float(spec.get("leaseDurationSeconds") or self._terms.lease_s)

    def record(self, lease: Document | None, namespace: str, name: str, at: datetime) -> Document:
        """The lease with this process as its holder, from the time `at`."""
        old = (lease or {}).get("spec") or {}
        changes = old.get("holderIdentity") != self.identity
        stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        metadata = lease["metadata"] if lease else {"namespace": namespace, "name": name}
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": {key: value for key, value in metadata.items() if key != "managedFields"},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": max(1, round(self._terms.lease_s)),
                "acquireTime": stamp if changes else old.get("acquireTime", stamp),
                "renewTime": stamp,
                "leaseTransitions": old.get("leaseTransitions", 0) + changes,
            },
        }


class Election:
    """Runs for the lease as long as it lives.

    Args:
        candidate: decides.
        namespace, name: where the lease is.
        terms: in seconds.

    """

    def __init__(self, candidate: Candidate, namespace: str, name: str, terms: Terms) -> None:
        self._candidate = candidate
        self._where = namespace, name
        self._terms = terms
        self._lease: Document | None = None
        self._until_s = 0.0

    @property
    def leading(self) -> bool:
        """Whether this process may act now."""
        return time.monotonic() < self._until_s

    async def run(self, kube: Kube, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `lead()` whenever this process leads, and cancel it when it does no more, until cancelled.

        Raises:
            Exception: what `lead()` raises.

        """
        while True:
            await self._win(kube)
            log.info("%s leads", self._candidate.identity)
            leading = asyncio.ensure_future(lead())
            keeping = asyncio.ensure_future(self._keep(kube))
            try:
                await asyncio.wait({leading, keeping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._until_s = 0.0 if not leading.done() else self._until_s
                await _end(leading, keeping)
            if not leading.cancelled():
                leading.result()
            log.warning("%s leads no more", self._candidate.identity)

    async def resign(self, kube: Kube) -> None:
        """Let another take over at once, if this process held the lease."""
        if self._lease is None or self._lease["spec"]["holderIdentity"] != self._candidate.identity:
            return
        self._until_s = 0.0
        with suppress(KubeError):
            await kube.put_lease(LEASE, {**self._lease, "spec": {**self._lease["spec"], "holderIdentity": ""}})

    async def _win(self, kube: Kube) -> None:
        while True:
            if await self._try(kube):
                return
            await asyncio.sleep(self._terms.look_s * random.uniform(0.8, 1.2))  # noqa: S311  # spreads, hides nothing

    async def _keep(self, kube: Kube) -> None:
        """Renew until that has failed for too long."""
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(self._until_s - time.monotonic()):
                    await asyncio.sleep(self._terms.renew_s)
                    await self._win(kube)

    async def _try(self, kube: Kube) -> bool:
        """One attempt to take or renew the lease."""
        namespace, name = self._where
        began_s = time.monotonic()
        try:
            if not self.leading or self._lease is None:  # the leader knows what it wrote
                self._lease = await kube.get(LEASE, namespace, name)
            if not self._candidate.may_take(self._lease, began_s):
                return False
            record = self._candidate.record(self._lease, namespace, name, datetime.now(UTC))
            self._lease = await kube.put_lease(LEASE, record)
        except KubeError as error:
            log.warning("lease %s/%s: %s", namespace, name, error)
            self._lease = None
            return False
        self._until_s = began_s + self._terms.lead_s
        return True


async def _end(*tasks: "asyncio.Future[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
