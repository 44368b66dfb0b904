"""Send a request to the best replica; hold it while there is none, try another where one fails."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

import aiohttp
import msgspec
from aiohttp import web
from multidict import CIMultiDict

from tempo_api.http.relay import Relayed, UpstreamError, relay
from tempo_api.openai import APIError, Ending
from tempo_api.wire import INTAKE_HEADER, QUEUE_HEADER, REPLICA_HEADER, Intake, encode_intake
from tempo_router.books import Books
from tempo_router.fleet import Ticket
from tempo_router.metrics import Metrics
from tempo_router.upstreams import Upstreams

HOLD_S: Final = 5.0
"""The longest wait for a replica to become ready, whatever a class allows."""
_RETRIED: Final = frozenset({502, 503})
"""Statuses by which a sidecar says that its engine is not to be had."""


@dataclass(frozen=True, slots=True, eq=False)
class Errand:
    """A request on its way."""

    request: web.Request
    body: bytes
    headers: CIMultiDict[str]
    """To be sent on; its intake is added for each replica anew, because time passes."""
    arrival_s: float
    tokens: int
    """Expected work, in output tokens."""
    slo_class: str = ""
    intake: Intake | None = None
    books: Books | None = None
    patience_s: float = HOLD_S
    """How long it may be held."""
    due_s: float = inf
    """Absolute; held any longer it is of no use."""


class Forwarder:
    """Sends errands.

    Args:
        upstreams: the replicas.
        metrics: where retries and queue times are counted.
        clock: seconds, the clock of the errands' times.

    """

    def __init__(self, upstreams: Upstreams, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._upstreams = upstreams
        self._metrics = metrics
        self._clock = clock

    async def send(self, errand: Errand, session: aiohttp.ClientSession) -> Relayed:
        """Hold, choose, relay; each replica gets at most one try, and none once the client has got a byte.

        Raises:
            APIError: `NO_REPLICA` or `DEADLINE_PASSED` after the hold; what the last replica failed with.

        """
        await self._hold(errand)
        program = errand.intake.program if errand.intake else None
        tried: list[str] = []
        failure: APIError = _no_replica("No replica is ready.")
        while ticket := self._upstreams.fleet.assign(errand.tokens, program, tried):
            if tried:
                self._metrics.retries.inc()
            tried.append(ticket.replica)
            try:
                return await self._try(errand, ticket, session)
            except UpstreamError as error:
                if error.ending is Ending.UPSTREAM_TIMEOUT:  # it may be at work on it still
                    raise
                failure = _no_replica("No replica could take the request.") if error.status == 503 else error
                self._upstreams.failed(ticket.replica)
            finally:
                self._upstreams.fleet.release(ticket)
        raise failure

    async def _hold(self, errand: Errand) -> None:
        left_s = errand.due_s - self._clock()
        if await self._upstreams.wait_ready(min(errand.patience_s, left_s)):
            return
        if left_s <= errand.patience_s:
            raise APIError(Ending.DEADLINE_PASSED, "The request's deadline passed before a replica was ready.")
        raise _no_replica(f"No replica was ready within {errand.patience_s:g} s.")

    async def _try(self, errand: Errand, ticket: Ticket, session: aiohttp.ClientSession) -> Relayed:
        fleet, queued_s = self._upstreams.fleet, self._clock() - errand.arrival_s
        if errand.intake:
            intake = msgspec.structs.replace(errand.intake, elapsed_s=queued_s)
            errand.headers[INTAKE_HEADER] = encode_intake(intake)
        if errand.books:
            errand.books.on_tokens = lambda tokens: fleet.produced(ticket, tokens)
        relayed = await relay(
            errand.request,
            session,
            ticket.url,
            body=errand.body,
            headers=errand.headers,
            tap=errand.books,
            refuse=_RETRIED,
            answer_headers={QUEUE_HEADER: str(round(queued_s * 1e3)), REPLICA_HEADER: ticket.replica},
        )
        self._metrics.queued.labels(errand.slo_class).observe(queued_s)
        return relayed


def _no_replica(message: str) -> APIError:
    return APIError(Ending.NO_REPLICA, message, retry_after_s=1.0)
