"""What the router does with each kind of request: resolve it, send it on, keep its books."""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from tempo_api.http.relay import forwarded_headers
from tempo_api.intake import Resolved, resolve
from tempo_api.manifest import Pool
from tempo_api.openai import APIError, Ending, parse_body
from tempo_api.wire import INTAKE_HEADER
from tempo_core.programs import Programs
from tempo_core.slo import Pattern
from tempo_router.books import Books
from tempo_router.estimate import OutputLengths, prompt_tokens
from tempo_router.fleet import PROMPT_SHARE
from tempo_router.forward import HOLD_S, Errand, Forwarder
from tempo_router.metrics import Metrics
from tempo_router.upstreams import Upstreams

SESSION: Final = web.AppKey("session", aiohttp.ClientSession)
REQUEST_ID: Final = "x-request-id"
BODY_TIMEOUT_S: Final = 60.0
_LONGEST_ID: Final = 256
_BOOKED: Final = web.RequestKey("booked", bool)


class Service:
    """The handlers, and the state that they share.

    Args:
        pool: the configuration; another may take its place at any time.
        upstreams: the replicas.
        metrics: where everything is counted.
        clock: seconds.

    """

    def __init__(self, pool: Pool, upstreams: Upstreams, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.pool = pool
        self._upstreams = upstreams
        self._metrics = metrics
        self._clock = clock
        self._programs = Programs()
        self._lengths = OutputLengths()
        self._forwarder = Forwarder(upstreams, metrics, clock)

    async def completion(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions` and `/v1/completions`."""
        arrival_s = self._clock()
        raw = await self._read(request)
        body = parse_body(raw)
        model = body.get("model")
        if model is not None:
            self._check_model(model)
        resolved = resolve(request.headers, body, self.pool, self._programs, arrival_s)
        request[_BOOKED] = True
        books = Books(resolved, arrival_s, prompt_tokens(body), self._clock)
        ending = Ending.INTERNAL
        try:
            errand = self._errand(request, raw, body, resolved, books)
            relayed = await self._forwarder.send(errand, request.app[SESSION])
            ending = relayed.ending
            return relayed.response
        except APIError as error:
            ending = error.ending
            raise
        except asyncio.CancelledError:
            ending = Ending.CLIENT_CLOSED
            raise
        finally:
            self._close(resolved, books, ending)

    async def pass_through(self, request: web.Request) -> web.StreamResponse:
        """Everything else under `/v1`: to the least busy replica, as it is."""
        raw = await self._read(request)
        errand = Errand(request, raw, _headers(request), self._clock(), tokens=1)
        relayed = await self._forwarder.send(errand, request.app[SESSION])
        self._metrics.requests.labels("", relayed.ending.value).inc()
        return relayed.response

    async def models(self, _: web.Request) -> web.Response:
        """`GET /v1/models`."""
        return web.json_response({"object": "list", "data": [self._model()]})

    async def model(self, request: web.Request) -> web.Response:
        """`GET /v1/models/{model}`."""
        self._check_model(request.match_info["model"])
        return web.json_response(self._model())

    async def state(self) -> dict[str, Any]:
        """What `/readyz` says."""
        replicas = self._upstreams.fleet.ready
        return {"ready": any(replicas.values()), "replicas": replicas}

    def refused(self, request: web.Request, ending: Ending) -> None:
        """Count a request that was refused before it had books."""
        if not request.get(_BOOKED):
            self._metrics.requests.labels("", ending.value).inc()

    def reconfigure(self, pool: Pool) -> None:
        """Go on with another configuration; requests in flight keep theirs."""
        self.pool = pool
        self._metrics.reloads.inc()

    def expire(self) -> None:
        """End the programs that have been idle."""
        for outcome in self._programs.expire(self._clock()):
            self._metrics.program_ended(outcome)

    def _errand(
        self, request: web.Request, raw: bytes, body: Mapping[str, Any], resolved: Resolved, books: Books
    ) -> Errand:
        slo, intake = resolved.slo, resolved.intake
        for what in resolved.clamped:
            self._metrics.clamped.labels(what).inc()
        work = self._lengths.expected(slo.name, body) + books.prompt_tokens * PROMPT_SHARE
        return Errand(
            request,
            raw,
            _headers(request),
            books.arrival_s,
            tokens=round(work),
            slo_class=slo.name,
            intake=intake,
            books=books,
            patience_s=min(slo.max_queue_time_s, HOLD_S),
            due_s=books.arrival_s + slo.deadline_s() if slo.pattern is Pattern.DEADLINE else inf,
        )

    def _close(self, resolved: Resolved, books: Books, ending: Ending) -> None:
        ending, outcome = books.finish(ending)
        self._metrics.ended(ending, outcome)
        if ending is Ending.COMPLETED:
            self._lengths.learn(outcome.slo_class, outcome.output_tokens)
        if resolved.call and (program := self._programs.end(resolved.call, outcome, self._clock())):
            self._metrics.program_ended(program)

    async def _read(self, request: web.Request) -> bytes:
        """The body, within the limit that the pool has now."""
        limit, body = self.pool.spec.router.max_body_bytes, bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limit:
                        raise APIError(Ending.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")
        except TimeoutError as error:
            raise APIError(Ending.CLIENT_CLOSED, f"The body did not arrive within {BODY_TIMEOUT_S:g} s.") from error
        return bytes(body)

    def _check_model(self, name: str) -> None:
        served = self.pool.served_model_name
        if name != served:
            message = f"The model {name!r} does not exist; this pool serves {served!r}."
            raise APIError(Ending.MODEL_NOT_FOUND, message, param="model")

    def _model(self) -> dict[str, Any]:
        return {"id": self.pool.served_model_name, "object": "model", "created": 0, "owned_by": "tempo"}


def _headers(request: web.Request) -> CIMultiDict[str]:
    """The client's headers as they go on: none that only the router may set, and always an id."""
    headers = forwarded_headers(request.headers, {INTAKE_HEADER})
    if not 0 < len(headers.get(REQUEST_ID, "")) <= _LONGEST_ID:
        headers[REQUEST_ID] = uuid.uuid4().hex
    return headers
