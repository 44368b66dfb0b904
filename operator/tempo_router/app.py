"""The router as an aiohttp app: routes, and what runs beside the requests."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from tempo_api.http.relay import new_session
from tempo_api.http.server import LIFECYCLE, make_app
from tempo_api.manifest import Pool
from tempo_api.reload import Reloader
from tempo_router.fleet import Fleet
from tempo_router.metrics import Metrics
from tempo_router.replicas import ReplicasFile
from tempo_router.service import SESSION, Service
from tempo_router.upstreams import Upstreams

EXPIRE_INTERVAL_S: Final = 1.0
_MAX_BODY_BYTES: Final = 64 << 20
"""Of any pool; each pool's own limit is no larger."""


def build_app(
    reloader: Reloader, replicas: Mapping[str, str] | ReplicasFile, clock: Callable[[], float] = time.monotonic
) -> web.Application:
    """The router's app. A changed file takes effect at once.

    Args:
        reloader: the pool's configuration.
        replicas: base URL of each replica's sidecar by name, or the file that says so.
        clock: seconds, of any origin; never set back.

    """
    pool, registry = reloader.pool, CollectorRegistry()
    fleet = Fleet(replicas.replicas if isinstance(replicas, ReplicasFile) else replicas)
    metrics, upstreams = Metrics(registry, fleet), Upstreams(fleet, clock)
    service = Service(pool, upstreams, metrics, clock)
    app = make_app(
        ready=service.state,
        registry=registry,
        on_error=service.refused,
        max_body_bytes=_MAX_BODY_BYTES,
        max_in_flight=pool.spec.router.max_concurrent_requests,
    )
    app.router.add_post("/v1/chat/completions", service.completion)
    app.router.add_post("/v1/completions", service.completion)
    app.router.add_get("/v1/models", service.models)
    app.router.add_get("/v1/models/{model:.+}", service.model)
    app.router.add_route("*", "/v1/{path:.+}", service.pass_through)

    def reconfigure(pool: Pool) -> None:
        service.reconfigure(pool)
        app[LIFECYCLE].max_in_flight = pool.spec.router.max_concurrent_requests

    async def background(app: web.Application) -> AsyncIterator[None]:
        async with new_session() as session:
            app[SESSION] = session
            following = [reloader.watch(reconfigure)]
            if isinstance(replicas, ReplicasFile):
                following.append(replicas.watch(upstreams.replace))
            running = asyncio.gather(upstreams.watch(session), _expire(service), *following)
            yield
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    app.cleanup_ctx.append(background)
    return app


async def _expire(service: Service) -> None:
    while True:
        await asyncio.sleep(EXPIRE_INTERVAL_S)
        service.expire()
