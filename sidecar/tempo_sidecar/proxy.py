"""The sidecar's HTTP side: a proxy in front of one engine."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from tempo_api.http.relay import Connections, forwarded_headers, new_session, relay
from tempo_api.http.server import LIFECYCLE, error_response, make_app, read_body
from tempo_api.intake import resolve
from tempo_api.manifest import Pool
from tempo_api.openai import APIError, Ending, Endpoint, parse_body
from tempo_api.prompt import prompt_estimate
from tempo_api.reload import Reloader
from tempo_api.state import STATE_PATH, EngineState
from tempo_api.wire import INTAKE_HEADER, Intake, decode_intake
from tempo_core.graphs import PatternGraphs
from tempo_core.programs import Call, Programs
from tempo_sidecar.analyse import analyse, asks_usage, engine_body, without_reserved
from tempo_sidecar.drain import DrainNote
from tempo_sidecar.health import EngineHealth
from tempo_sidecar.history import HistoryKeeper, history_metrics
from tempo_sidecar.lengths import LengthModel
from tempo_sidecar.metrics import Metrics
from tempo_sidecar.plugin import StallWatch, StatusFile, status_metrics
from tempo_sidecar.rate import BusyRate
from tempo_sidecar.state import StateStream
from tempo_sidecar.tracker import Tracker

_MAX_BODY_BYTES: Final = 64 << 20
"""A bound, not a policy: what callers may send is the router's business."""
# Only Tempo may say what comes first, and the engine takes a priority from a header too.
_RESERVED_HEADERS: Final = (INTAKE_HEADER, "x-vllm-priority")
_HOUSEKEEPING_S: Final = 1.0


class Sidecar:
    """Everything that one sidecar knows; `app()` is its server, for one event loop.

    Args:
        engine_url: such as `http://127.0.0.1:8002`.
        reloader: the pool's manifest.
        lengths: predicts and learns output lengths.
        history: predicts and learns what programs are like; None: one that nothing outlasts.
        plugin_status: the file in which the scheduler plug-in says how it fares.
        drain_note: the engine's way to ask for a drain.
        max_in_flight: one request more is refused with 429.
        clock: absolute seconds (epoch), which engine and sidecar share.

    """

    def __init__(
        self,
        engine_url: str,
        reloader: Reloader,
        lengths: LengthModel,
        *,
        history: HistoryKeeper | None = None,
        plugin_status: Path | None = None,
        drain_note: DrainNote | None = None,
        max_in_flight: int = 4096,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine_url = engine_url.rstrip("/")
        self._reloader = reloader
        self._lengths = lengths
        self._history = history or HistoryKeeper(PatternGraphs())
        self._plugin = StatusFile(plugin_status)
        self._stall = StallWatch()
        self._drain_note = drain_note
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._metrics = Metrics()
        self._programs = Programs()
        self._rate = BusyRate()
        self._stream = StateStream(self._state, self._refresh)
        self._session: aiohttp.ClientSession
        self._connections: Connections
        self._health: EngineHealth

    def app(self) -> web.Application:
        """The server."""
        self._app = make_app(
            ready=self._ready,
            registry=self._metrics.registry,
            on_error=self._refused,
            max_body_bytes=_MAX_BODY_BYTES,
            max_in_flight=self._max_in_flight,
        )
        for endpoint in Endpoint:
            self._app.router.add_post(endpoint.value, self._complete)
        self._app.router.add_get("/engine/health", self._engine_health)
        self._app.router.add_get("/engine/metrics", self._engine_metrics)
        self._app.router.add_get(STATE_PATH, self._stream.handle)
        self._app.router.add_route("*", "/{path:.*}", self._pass_through)
        self._app.cleanup_ctx.append(self._running)
        self._app.on_shutdown.append(self._shut)
        self._add_scraped_metrics()
        return self._app

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        raw = await read_body(request, _MAX_BODY_BYTES)
        body = parse_body(raw)
        pool, now_s = self._reloader.pool, self._clock()
        intake, call = self._intake(request.headers, body, pool, now_s)
        member = None
        if intake.program is not None:
            slo = pool.classes.get(intake.slo_class, pool.default)
            intake, member = self._history.begin(intake, slo, prompt_estimate(body)[0], now_s)
        work = analyse(intake, body, pool, self._lengths, now_s, endpoint=Endpoint(request.path))
        tracker = Tracker(work, self._clock, self._rate.add, drop_usage=not asks_usage(body))
        self._rate.begin(now_s)
        ending = Ending.INTERNAL
        try:
            relayed = await relay(
                request,
                self._connections,
                self._engine_url,
                body=engine_body(raw, body, work),
                headers=forwarded_headers(request.headers, _RESERVED_HEADERS),
                tap=tracker,
            )
            ending = relayed.ending
            return relayed.response
        except APIError as error:
            ending = error.ending
            return error_response(error)
        except asyncio.CancelledError:
            ending = Ending.CLIENT_CLOSED
            raise
        finally:
            self._ended(tracker, call, member, ending, pool)

    def _intake(
        self, headers: Mapping[str, str], body: Mapping[str, Any], pool: Pool, now_s: float
    ) -> tuple[Intake, Call | None]:
        """What the router made of the request; without a router, what the sidecar makes of it itself."""
        if (value := headers.get(INTAKE_HEADER)) is not None:
            try:
                intake = decode_intake(value)
            except ValueError:
                self._metrics.intake_malformed.inc()
            else:
                self._metrics.class_unknown.inc(intake.slo_class not in pool.classes)
                return intake, None
        resolved = resolve(headers, body, pool, self._programs, now_s)
        return resolved.intake, resolved.call

    def _ended(self, tracker: Tracker, call: Call | None, member: Call | None, ending: Ending, pool: Pool) -> None:
        now_s = self._clock()
        self._rate.end(now_s)
        if ending is Ending.COMPLETED and tracker.broken:
            ending = Ending.UPSTREAM_FAILED
        outcome = tracker.finish()
        self._metrics.ended(outcome.slo_class, ending)
        if member:
            self._history.end(member, outcome, now_s)
        if call and (program := self._programs.end(call, outcome, now_s)):
            self._metrics.program_ended(program)
        if ending is not Ending.COMPLETED:
            return
        self._metrics.completed(outcome, streamed=tracker.streamed)
        if tracker.learnable:
            self._metrics.bound(outcome.slo_class, covered=tracker.covered(pool.settings.length_quantile))
            self._lengths.learn(tracker.work.lengths, outcome.output_tokens, truncated=tracker.truncated)

    def _refused(self, _: web.Request, ending: Ending) -> None:
        """Count what was answered with an error before it had a class; `_ended` counts the others."""
        self._metrics.ended("", ending)

    async def _pass_through(self, request: web.Request) -> web.StreamResponse:
        headers = forwarded_headers(request.headers, _RESERVED_HEADERS)
        body = without_reserved(await read_body(request, _MAX_BODY_BYTES))
        relayed = await relay(request, self._connections, self._engine_url, body=body, headers=headers)
        return relayed.response

    async def _engine_health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if await self._health.healthy() else 503)

    async def _engine_metrics(self, _: web.Request) -> web.Response:
        try:
            async with self._session.get(f"{self._engine_url}/metrics") as answer:
                return web.Response(body=await answer.read(), status=answer.status, content_type=answer.content_type)
        except (aiohttp.ClientError, OSError) as error:
            raise APIError(Ending.UPSTREAM_FAILED, "The engine can't be reached.") from error

    async def _ready(self) -> dict[str, Any]:
        now_s = self._clock()
        status = self._plugin.read(now_s)
        stalled = self._stall.stalled(status, now_s)
        return {
            "ready": await self._health.healthy() and not stalled,
            "stalled": stalled,
            "running": self._rate.live,
            "in_flight": self._app[LIFECYCLE].in_flight,
            "scheduler": status.state,
            "tokens_per_s": round(self._rate.tokens_per_s(now_s), 1),
        }

    def _state(self) -> EngineState:
        """The same for those who listen, who can't wait for the engine's health."""
        now_s, lifecycle = self._clock(), self._app[LIFECYCLE]
        status = self._plugin.read(now_s)
        return EngineState(
            ready=self._health.latest and not lifecycle.draining and not self._stall.stalled(status, now_s),
            draining=lifecycle.draining,
            in_flight=lifecycle.in_flight,
            running=self._rate.live if status.state == "unknown" else status.running,
            waiting=status.waiting,
            places=status.places,
            ranks=status.state == "active" and status.policy == "tempo",
            cache_used=status.cache_used,
            tokens_per_s=round(self._rate.tokens_per_s(now_s), 1),
            step_time=status.learned,
        )

    async def _refresh(self) -> None:
        await self._health.healthy()

    def _add_scraped_metrics(self) -> None:
        lifecycle, reloader = self._app[LIFECYCLE], self._reloader
        self._metrics.gauge("in_flight", "Requests in flight", lambda: lifecycle.in_flight)
        self._metrics.gauge("programs", "Programs followed here", lambda: len(self._programs))
        self._metrics.gauge("config_reloads", "Configurations taken over", lambda: reloader.reloads)
        self._metrics.gauge("config_failures", "Configurations refused", lambda: reloader.failures)
        self._metrics.collect(self._lengths.metrics)
        self._metrics.collect(lambda: history_metrics(self._history))
        self._metrics.collect(lambda: status_metrics(self._plugin.read(self._clock())))

    async def _running(self, _: web.Application) -> AsyncIterator[None]:
        async with (
            new_session() as self._session,
            Connections() as self._connections,
            self._lengths.running(),
            self._history.running(),
        ):
            self._health = EngineHealth(self._session, self._engine_url)
            housekeeping = asyncio.create_task(self._keep_house())
            yield
            housekeeping.cancel()
            await asyncio.gather(housekeeping, return_exceptions=True)

    async def _shut(self, _: web.Application) -> None:
        self._stream.close()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_S)
            self._reloader.poll()
            if self._drain_note:
                self._drain_note.poll(self._app[LIFECYCLE], self._clock())
            self._history.expire(self._clock())
            for program in self._programs.expire(self._clock()):
                self._metrics.program_ended(program)
