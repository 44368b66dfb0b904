"""The router as an aiohttp app: routes, and what runs beside the requests."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from tempo_api.http.relay import Connections, new_session
from tempo_api.http.server import LIFECYCLE, make_app
from tempo_api.manifest import Pool
from tempo_api.openai import PLAIN_PATHS, Endpoint
from tempo_api.reload import Reloader
from tempo_router.fleet import Fleet
from tempo_router.limits import Limits
from tempo_router.metrics import Live, Metrics
from tempo_router.replicas import ReplicasFile
from tempo_router.service import CONNECTIONS, Service
from tempo_router.tenants import Exchange, Totals
from tempo_router.upstreams import Upstreams

if TYPE_CHECKING:  # it needs an extra
    from tempo_router.tracing import Tracing

EXPIRE_INTERVAL_S: Final = 1.0
_MAX_BODY_BYTES: Final = 64 << 20
"""Of any pool; each pool's own limit is no larger."""


def build_app(
    reloader: Reloader,
    replicas: Mapping[str, str] | ReplicasFile,
    clock: Callable[[], float] = time.monotonic,
    limits: Limits | None = None,
    tenants: Totals | None = None,
    tracing: "Tracing | None" = None,
) -> web.Application:
    """The router's app. A changed file takes effect at once.

    Args:
        reloader: the pool's configuration.
        replicas: base URL of each replica's sidecar by name, or the file that says so.
        clock: seconds, of any origin; never set back.
        limits: how patient to be with replicas.
        tenants: through which the pool's routers share what tenants have been served; closed at the end.
        tracing: makes a span of each request.

    """
    pool, registry = reloader.pool, CollectorRegistry()
    fleet = Fleet(replicas.replicas if isinstance(replicas, ReplicasFile) else replicas, clock, limits)
    metrics, upstreams = Metrics(registry), Upstreams(fleet)
    service = Service(pool, upstreams, metrics, clock, tracing)
    exchange = Exchange(tenants, service.line.gate.shares) if tenants else None
    registry.register(Live(fleet, service.line.held, exchange))
    app = make_app(
        ready=service.state,
        registry=registry,
        on_error=service.refused,
        max_body_bytes=_MAX_BODY_BYTES,
        max_in_flight=pool.spec.router.max_concurrent_requests,
    )
    for endpoint in Endpoint:
        app.router.add_post(endpoint.value, service.completion)
    for path in PLAIN_PATHS:
        app.router.add_post(path, service.pass_through)
    app.router.add_get("/v1/models", service.models)
    app.router.add_get("/v1/models/{model:.+}", service.model)
    app.router.add_route("*", "/v1/{path:.+}", service.pass_through)

    def reconfigure(pool: Pool) -> None:
        service.reconfigure(pool)
        app[LIFECYCLE].max_in_flight = pool.spec.router.max_concurrent_requests

    async def background(app: web.Application) -> AsyncIterator[None]:
        async with new_session() as session, Connections() as app[CONNECTIONS]:
            fleet.on_lost = app[CONNECTIONS].lost
            following = [reloader.watch(reconfigure)]
            if isinstance(replicas, ReplicasFile):
                following.append(replicas.watch(upstreams.replace))
            if exchange:
                following.append(exchange.watch())
            running = asyncio.gather(upstreams.watch(session), service.line.watch(), _expire(service), *following)
            yield
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    app.cleanup_ctx.append(background)
    if tracing:
        tracing.install(app)
    return app


async def _expire(service: Service) -> None:
    while True:
        await asyncio.sleep(EXPIRE_INTERVAL_S)
        service.expire()
