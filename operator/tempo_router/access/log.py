"""The access log: one line of JSON a request, without a word of what was asked or answered, and without any key."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isnan
from typing import Any, Final

import orjson
from aiohttp import web

from tempo_api.http.server import PROBES, Handler
from tempo_api.openai import Ending
from tempo_api.wire import QUEUE_HEADER, REPLICA_HEADER, Intake
from tempo_core.gain import Outcome
from tempo_router.access.lines import Lines

_LONGEST: Final = 256
"""Of whatever a client chooses."""


@dataclass(slots=True)
class Entry:
    """What handlers know of a request; what they don't fill in is null in its line."""

    request_id: str | None = None
    tenant: str | None = None
    slo_class: str | None = None
    ending: Ending | None = None
    outcome: Outcome | None = None
    """Of a completion."""

    def complete(self, intake: Intake, ending: Ending, outcome: Outcome) -> None:
        """A completion has ended, whichever way."""
        self.tenant, self.slo_class = intake.tenant or None, intake.slo_class
        self.ending, self.outcome = ending, outcome


ENTRY: Final = web.RequestKey("access_log_entry", Entry)


def entry_of(request: web.Request) -> Entry:
    """The request's entry, to be filled in; where there is no log, one that nobody reads."""
    return request.get(ENTRY) or Entry()


class AccessLog:
    """Writes a line for each request but the probes, when it ends.

    Args:
        lines: where they go.

    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def install(self, app: web.Application) -> None:
        """See every request from its first moment to its last, while the app runs."""
        app.middlewares.insert(0, self._middleware)
        app.cleanup_ctx.append(self._write)

    @property
    def _middleware(self) -> Any:
        @web.middleware
        async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in PROBES:
                return await handler(request)
            entry = request[ENTRY] = Entry()
            at, began_s, response = datetime.now(UTC), time.perf_counter(), None
            try:
                response = await handler(request)
                return response
            finally:
                self._lines.put(line(at, time.perf_counter() - began_s, request, response, entry))

        return watch

    async def _write(self, _: web.Application) -> AsyncIterator[None]:
        self._lines.start()
        yield
        self._lines.close()


def line(
    at: datetime, duration_s: float, request: web.Request, response: web.StreamResponse | None, entry: Entry
) -> bytes:
    """A request's line.

    Args:
        at: when it arrived.
        duration_s: how long it took.
        request: of which method, path and id are told.
        response: None if the client left before there was one.
        entry: what handlers know of it.

    """
    headers = {} if response is None else response.headers
    status = Ending.CLIENT_CLOSED.status if response is None else response.status
    outcome, ending, queued = entry.outcome, _ending(entry, status), headers.get(QUEUE_HEADER)
    fields = {
        "time": at,
        "id": entry.request_id or request.headers.get("x-request-id", "")[:_LONGEST] or None,
        "method": request.method,
        "path": request.path[:_LONGEST],
        "status": status,
        "class": entry.slo_class,
        "tenant": entry.tenant,
        "replica": headers.get(REPLICA_HEADER),
        "queue_ms": int(queued) if queued else None,
        "duration_ms": round(duration_s * 1e3, 1),
        "ttft_ms": None if outcome is None or isnan(outcome.ttft_s) else round(outcome.ttft_s * 1e3, 1),
        "tokens_in": None if outcome is None else outcome.prompt_tokens,
        "tokens_out": None if outcome is None else outcome.output_tokens,
        "ending": ending and ending.value,
    }
    try:
        return orjson.dumps(fields, option=orjson.OPT_UTC_Z)
    except orjson.JSONEncodeError:  # bytes in a header or a path that are no text
        plain = {name: _plain(value) if isinstance(value, str) else value for name, value in fields.items()}
        return orjson.dumps(plain, option=orjson.OPT_UTC_Z)


def _ending(entry: Entry, status: int) -> Ending | None:
    """Where no handler says, what the status does."""
    if entry.ending is not None:
        return entry.ending
    if status == Ending.CLIENT_CLOSED.status:
        return Ending.CLIENT_CLOSED
    return Ending.COMPLETED if status < 400 else None


def _plain(text: str) -> str:
    return text.encode(errors="replace").decode()
