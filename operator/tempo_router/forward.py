"""Send a request to its replica once its turn has come, and to another where that one fails."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

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

_RETRIED: Final = frozenset({502, 503})
"""Statuses by which a sidecar says that its engine is not to be had."""


@dataclass(frozen=True, slots=True, eq=False)
class Errand:
    """A request on its way."""

    request: web.Request
    body: bytes
    headers: CIMultiDict[str]
    """To be sent on; its intake is added for each replica anew, because time passes."""
    turn: Turn
    intake: Intake | None = None
    books: Books | None = None


class Forwarder:
    """Sends errands.

    Args:
        line: where they wait.
        fleet: the replicas.
        metrics: where retries and queue times are counted.
        clock: seconds, the clock of the errands' times.

    """

    def __init__(self, line: Line, fleet: Fleet, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._line = line
        self._fleet = fleet
        self._metrics = metrics
        self._clock = clock

    async def send(self, errand: Errand, connections: Connections) -> Relayed:
        """Wait, then relay; each replica gets at most one try, and none once the client has got a byte.

        Raises:
            APIError: as `Line.wait`; what the last replica failed with.

        """
        tried: list[str] = []
        ticket: Ticket | None = await self._line.wait(errand.turn)
        while ticket:
            tried.append(ticket.replica)
            try:
                return await self._try(errand, ticket, connections)
            except UpstreamError as error:
                if error.ending is Ending.UPSTREAM_TIMEOUT:  # it may be at work on it still
                    raise
                failure = _unavailable() if error.status == 503 else error
                self._fleet.failed(ticket.replica)
            finally:
                self._fleet.release(ticket)
            ticket = self._line.again(errand.turn, tried) if self._fleet.may_retry() else None
            self._metrics.retries.inc(ticket is not None)
        raise failure

    async def _try(self, errand: Errand, ticket: Ticket, connections: Connections) -> Relayed:
        fleet, turn = self._fleet, errand.turn
        queued_s = self._clock() - turn.arrival_s
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
            refuse=_RETRIED,
            answer_headers=_said(turn, queued_s, ticket.replica),
        )
        self._metrics.queued[turn.demand.slo.name].observe(queued_s)
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
