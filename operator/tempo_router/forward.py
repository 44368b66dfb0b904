"""Send a request to its replica once its turn has come, and to another where that one fails."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from tempo_api.http.relay import Connections, Relayed, UpstreamError, relay
from tempo_api.openai import APIError, Ending
from tempo_api.wire import (
    CLASS_HEADER,
    DEGRADED_HEADER,
    INTAKE_HEADER,
    QUEUE_HEADER,
    REPLICA_HEADER,
    Intake,
    encode_intake,
)
from tempo_router.books import Books
from tempo_router.fleet import Fleet
from tempo_router.line import Line, Turn
from tempo_router.member import Ticket
from tempo_router.metrics import Metrics

if TYPE_CHECKING:  # it needs an extra
    from tempo_router.tracing import Tracing

_AWAY: Final = frozenset({502, 503})
"""Statuses by which a sidecar says that its engine is not to be had."""
_BROKE: Final = 500
"""The status of an engine that failed at a request, be it the engine's own fault or the request's."""
_BROKEN_OFF: Final = frozenset({Ending.UPSTREAM_FAILED, Ending.UPSTREAM_TIMEOUT})
_MOST_TRIES: Final = 3
"""Of one request: there are some that kill every engine they get to."""


class Errand(NamedTuple):
    """A request on its way."""

    request: web.Request
    body: bytes
    headers: CIMultiDict[str]
    """To be sent on; its intake is added for each replica anew, because time passes."""
    turn: Turn
    intake: Intake | None = None
    books: Books | None = None
    model: str | None = None
    """As it was asked for."""


class Forwarder:
    """Sends errands.

    Args:
        line: where they wait.
        fleet: the replicas.
        metrics: where retries and queue times are counted.
        clock: seconds, the clock of the errands' times.
        tracing: follows errands, if they are traced.

    """

    def __init__(
        self,
        line: Line,
        fleet: Fleet,
        metrics: Metrics,
        clock: Callable[[], float],
        tracing: "Tracing | None" = None,
    ) -> None:
        self._line = line
        self._fleet = fleet
        self._metrics = metrics
        self._clock = clock
        self._tracing = tracing

    async def send(self, errand: Errand, connections: Connections) -> Relayed:
        """Wait, then relay; if that fails, try others within the budget, but none once the client has got a byte.

        No replica gets the request twice, and no more than `_MOST_TRIES` get it. An engine's own 500 is tried once
        more elsewhere; where that fails at it too, or may not be, the client gets the engine's word.

        Raises:
            APIError: as `Line.wait`; what the last replica failed with.

        """
        if self._tracing:
            self._tracing.waits(errand, self._clock())
        tried: list[str] = []
        ticket: Ticket | None = await self._line.wait(errand.turn)
        while ticket:
            tried.append(ticket.replica)
            try:
                return await self._try(errand, ticket, connections, tried)
            except UpstreamError as error:
                if error.status == _BROKE:
                    self._fleet.answered(ticket, _BROKE)
                else:
                    self._fleet.failed(ticket.replica)
                if error.ending is Ending.UPSTREAM_TIMEOUT:  # it may be at work on it still
                    raise
                failure = _unavailable() if error.status == 503 else error
            finally:
                self._fleet.release(ticket)
            may = len(tried) < _MOST_TRIES and self._fleet.may_retry()
            ticket = self._line.again(errand.turn, tried) if may else None
            self._metrics.retries.inc(by=ticket is not None)
        raise failure

    def _refused(self, turn: Turn, tried: Sequence[str], status: int) -> bool:
        """Whether an answer of this status is kept from the client, because another replica may do better."""
        if status != _BROKE:
            return status in _AWAY
        return len(tried) == 1 and self._fleet.could_retry() and self._line.others(turn, tried)

    async def _try(self, errand: Errand, ticket: Ticket, connections: Connections, tried: Sequence[str]) -> Relayed:
        fleet, turn = self._fleet, errand.turn
        queued_s = self._clock() - turn.arrival_s
        if self._tracing:
            self._tracing.sent(errand, ticket.replica, turn.arrival_s + queued_s)
        if errand.intake:
            intake = msgspec.structs.replace(errand.intake, elapsed_s=queued_s, degraded=turn.degraded)
            errand.headers[INTAKE_HEADER] = encode_intake(intake)
        if errand.books:
            errand.books.on_tokens = partial(fleet.produced, ticket)
            errand.books.on_begin = partial(fleet.answered, ticket)
        relayed = await relay(
            errand.request,
            connections,
            ticket.url,
            body=errand.body,
            headers=errand.headers,
            tap=errand.books,
            refuse=partial(self._refused, turn, tried),
            answer_headers=_said(turn, queued_s, ticket.replica),
        )
        self._metrics.queued.observe(turn.demand.slo.name, queued_s)
        if relayed.ending in _BROKEN_OFF:
            fleet.failed(ticket.replica)
        elif not errand.books and relayed.ending is not Ending.CLIENT_CLOSED:
            fleet.answered(ticket, relayed.response.status)
        return relayed


def _said(turn: Turn, queued_s: float, replica: str) -> dict[str, str]:
    """What the answer's head tells of how it came about; its body stays as it is."""
    said = {QUEUE_HEADER: str(round(queued_s * 1e3)), REPLICA_HEADER: replica}
    if turn.demand.slo.name:
        said[CLASS_HEADER] = turn.demand.slo.name
    if turn.degraded:
        said[DEGRADED_HEADER] = "1"
    return said


def _unavailable() -> APIError:
    return APIError(Ending.NO_REPLICA, "No replica could take the request.", retry_after_s=1.0)
