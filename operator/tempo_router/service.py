"""What the router does with each kind of request: resolve it, send it on, keep its books."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from multidict import CIMultiDict

from tempo_api.http.relay import Connections, forwarded_headers
from tempo_api.http.server import read_body
from tempo_api.intake import Resolved, resolve
from tempo_api.manifest import Pool
from tempo_api.openai import APIError, Ending, output_cap, parse_body
from tempo_api.wire import INTAKE_HEADER
from tempo_core.graphs import Forecast, PatternGraphs
from tempo_core.lengths import UsualLengths
from tempo_core.prefixes import chain
from tempo_core.programs import Programs
from tempo_core.routing import Demand
from tempo_core.slo import Pattern, SLOClass
from tempo_router.access import Entry, Principal, entry_of, principal_of
from tempo_router.books import Books
from tempo_router.estimate import answers, output_tokens, prompt_of, prompt_tokens
from tempo_router.forward import Errand, Forwarder
from tempo_router.line import Line, Turn
from tempo_router.metrics import Metrics
from tempo_router.upstreams import Upstreams

if TYPE_CHECKING:  # it needs an extra
    from tempo_router.tracing import Tracing

CONNECTIONS: Final = web.AppKey("connections", Connections)
REQUEST_ID: Final = "x-request-id"
_LONGEST_ID: Final = 256
_PLAIN: Final = Demand(SLOClass("", Pattern.BEST_EFFORT), prompt_tokens=0.0, output_tokens=1.0)
"""What an engine does without its batch: tokenizing, and whatever else passes as it is."""
_FOR_OPERATORS: Final = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
"""Paths of the engine's that change what it serves."""
_NO_CAP: Final = 1 << 20
_BOOKED: Final = web.RequestKey("booked", bool)


class Service:
    """The handlers, and the state that they share.

    Args:
        pool: the configuration; another may take its place at any time.
        upstreams: the replicas.
        metrics: where everything is counted.
        clock: seconds.
        tracing: follows requests, if they are traced.

    """

    def __init__(
        self,
        pool: Pool,
        upstreams: Upstreams,
        metrics: Metrics,
        clock: Callable[[], float],
        tracing: "Tracing | None" = None,
    ) -> None:
        self.pool = pool
        self._upstreams = upstreams
        self._metrics = metrics
        self._clock = clock
        self._programs = Programs()
        self._graphs = PatternGraphs()
        self._lengths = UsualLengths()
        # Unlike those of any other router, and far cheaper than a random one for each request.
        self._ids = map(f"{secrets.token_hex(8)}{{:016x}}".format, count())
        self.line = Line(upstreams.fleet, clock, _most_held(pool), pool.settings)
        self._forwarder = Forwarder(self.line, upstreams.fleet, metrics, clock, tracing)

    async def completion(self, request: web.Request) -> web.StreamResponse:
        """What generates text: `POST` to an `Endpoint`."""
        arrival_s = self._clock()
        raw = await read_body(request, self.pool.spec.router.max_body_bytes)
        body = parse_body(raw)
        model = body.get("model")
        if model is not None:
            self._check_model(model)
        principal = principal_of(request)
        resolved = resolve(request.headers, body, self.pool, self._programs, arrival_s, principal.grant)
        request[_BOOKED] = True
        books, entry = Books(resolved, arrival_s, prompt_tokens(body), self._clock), entry_of(request)
        ending, turn, forecast = Ending.INTERNAL, None, self._forecast(resolved, books)
        try:
            with principal.hold(resolved.slo.name):
                turn = self._turn(raw, body, resolved, books, forecast)
                headers = self._headers(request, principal, entry)
                errand = Errand(request, raw, headers, turn, resolved.intake, books, model)
                relayed = await self._forwarder.send(errand, request.app[CONNECTIONS])
            ending = relayed.ending
            return relayed.response
        except APIError as error:
            ending = error.ending
            raise
        except asyncio.CancelledError:
            ending = Ending.CLIENT_CLOSED
            raise
        finally:
            self._close(entry, resolved, books, turn, ending)

    async def pass_through(self, request: web.Request) -> web.StreamResponse:
        """What else the engine has for callers: to the least busy replica, as it is."""
        if request.path in _FOR_OPERATORS:
            raise APIError(Ending.UNKNOWN_PATH, f"Unknown request URL: {request.method} {request.path}.")
        raw = await read_body(request, self.pool.spec.router.max_body_bytes)
        turn, entry = Turn(next(self._ids), _PLAIN, self._clock(), needs_room=False), entry_of(request)
        errand = Errand(request, raw, self._headers(request, principal_of(request), entry), turn)
        relayed = await self._forwarder.send(errand, request.app[CONNECTIONS])
        entry.ending = relayed.ending
        self._metrics.requests.inc("", relayed.ending.value)
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
        entry_of(request).ending = ending
        if not request.get(_BOOKED):
            self._metrics.requests.inc("", ending.value)

    def reconfigure(self, pool: Pool) -> None:
        """Go on with another configuration; requests in flight keep theirs."""
        self.pool = pool
        self.line.gate.settings, self.line.gate.capacity = pool.settings, _most_held(pool)
        self._metrics.reloads.inc()

    def expire(self) -> None:
        """End the programs that have been idle."""
        now_s = self._clock()
        self._graphs.expire(now_s)
        for outcome in self._programs.expire(now_s):
            self._metrics.program_ended(outcome)

    def _forecast(self, resolved: Resolved, books: Books) -> Forecast | None:
        """What is to come of the request's program, by those that this router has seen end."""
        if not resolved.call:
            return None
        final = resolved.intake.final
        return self._graphs.begin(resolved.call, resolved.slo, books.prompt_tokens, books.arrival_s, final=final)

    def _turn(
        self, raw: bytes, body: Mapping[str, Any], resolved: Resolved, books: Books, forecast: Forecast | None
    ) -> Turn:
        slo, call, arrival_s, tenant = resolved.slo, resolved.call, books.arrival_s, resolved.intake.tenant
        for what in resolved.clamped:
            self._metrics.clamped.inc(what)
        began_s = call.program_arrival_s if call else arrival_s
        due_s = forecast.due_s if forecast else arrival_s + slo.deadline_s()
        count, cap = answers(body), output_cap(body)
        tokens = output_tokens(self._lengths.usual(slo.name, tenant), count, cap)
        return Turn(
            next(self._ids),
            Demand(slo, books.prompt_tokens, tokens, arrival_s - began_s, due_s - began_s),
            arrival_s,
            tenant,
            call,
            forecast,
            chain(prompt_of(raw)) if len(self._upstreams.fleet) > 1 else (),
            answers=count,
            max_tokens=cap or _NO_CAP,
            streams=bool(body.get("stream")),
        )

    def _close(self, entry: Entry, resolved: Resolved, books: Books, turn: Turn | None, ending: Ending) -> None:
        ending, outcome = books.finish(ending)
        entry.complete(resolved.intake, ending, outcome)
        self._metrics.ended(ending, outcome)
        if turn:
            self.line.ended(turn, outcome.prompt_tokens, outcome.output_tokens)
            if ending is Ending.COMPLETED:
                self._lengths.learn(outcome.slo_class, turn.tenant, outcome.output_tokens // turn.answers)
        if resolved.call:
            now_s = self._clock()
            self._graphs.end(resolved.call, outcome, now_s)
            if program := self._programs.end(resolved.call, outcome, now_s):
                self._metrics.program_ended(program)

    def _headers(self, request: web.Request, principal: Principal, entry: Entry) -> CIMultiDict[str]:
        """The client's headers as they go on: none that only the router may set, and always an id."""
        headers = forwarded_headers(request.headers, (INTAKE_HEADER, *principal.own_headers))
        if not 0 < len(headers.get(REQUEST_ID, "")) <= _LONGEST_ID:
            headers[REQUEST_ID] = next(self._ids)
        entry.request_id = headers[REQUEST_ID]
        return headers

    def _check_model(self, name: str) -> None:
        served = self.pool.served_model_name
        if name != served:
            message = f"The model {name!r} does not exist; this pool serves {served!r}."
            raise APIError(Ending.MODEL_NOT_FOUND, message, param="model")

    def _model(self) -> dict[str, Any]:
        return {"id": self.pool.served_model_name, "object": "model", "created": 0, "owned_by": "tempo"}


def _most_held(pool: Pool) -> int:
    """The other half of what the router takes is for those that have a replica."""
    return max(pool.spec.router.max_concurrent_requests // 2, 1)
