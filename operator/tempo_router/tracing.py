"""OpenTelemetry: one span a request, of which those of the sidecar and of the engine are children.

The standard environment says where spans go and which are kept (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`
and so on). They leave by a thread of the SDK's, from a queue that is bounded: a collector that is slow or dead loses
spans, and holds up no request.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from aiohttp import web
from multidict import CIMultiDictProxy
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tempo_api.http.server import PROBES, Handler
from tempo_router.access.log import ENTRY, Entry
from tempo_router.forward import Errand
from tempo_router.replicas import is_url
from tempo_router.spans import Trace, opening

FLUSH_S: Final = 2.0
"""How long the end of the router waits for the last spans to leave."""
_TRACE: Final = web.RequestKey("trace", Trace)
_W3C: Final = TraceContextTextMapPropagator()


class _Fields(Getter[CIMultiDictProxy[str]]):
    """Reads headers; `tracestate` may come in several lines."""

    def get(self, carrier: CIMultiDictProxy[str], key: str) -> list[str] | None:
        return carrier.getall(key, None)

    def keys(self, carrier: CIMultiDictProxy[str]) -> list[str]:
        return list(carrier)


_FIELDS: Final = _Fields()


class Tracing:
    """Makes a span of each request but the probes.

    Args:
        provider: where spans go; shut down at the end.

    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("tempo_router")

    def install(self, app: web.Application) -> None:
        """See every request from its first moment to its last, while the app runs."""
        app.middlewares.insert(0, self._middleware)
        app.cleanup_ctx.append(self._flush)

    def waits(self, errand: Errand, now_s: float) -> None:
        """It wants a replica; from here on its headers name the span as the parent of whatever comes."""
        trace = errand.request[_TRACE]
        trace.errand, trace.epoch_s = errand, time.time() - now_s
        errand.headers.popall("tracestate", None)  # stays here where its trace is not gone on with
        _W3C.inject(errand.headers, set_span_in_context(trace.span))

    def sent(self, errand: Errand, replica: str, now_s: float) -> None:
        """It goes to this replica."""
        errand.request[_TRACE].tries.append((replica, now_s))

    @property
    def _middleware(self) -> Any:
        @web.middleware
        async def follow(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in PROBES:
                return await handler(request)
            if ENTRY not in request:  # where there is an access log, both read the same entry
                request[ENTRY] = Entry()
            name, said = opening(request)
            span = self._tracer.start_span(name, _W3C.extract(request.headers, getter=_FIELDS), SpanKind.SERVER, said)
            trace, response = Trace(span), None
            request[_TRACE] = trace
            try:
                response = await handler(request)
                return response
            finally:
                trace.end(request, response)

        return follow

    async def _flush(self, _: web.Application) -> AsyncIterator[None]:
        yield
        # The SDK waits for half a minute where a collector hangs; a daemon holds up no exit.
        thread = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, FLUSH_S)


def open_tracing(asked: str, environ: Mapping[str, str]) -> Tracing:
    """Tracing as the standard environment has it, most of which the SDK reads by itself.

    Args:
        asked: the variable that says where spans go.
        environ: all of them.

    Raises:
        ValueError: for one that asks for what can't be done.

    """
    if not is_url(environ[asked]):
        raise ValueError(f"{asked}={environ[asked]}: write a URL such as http://collector:4318.")
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    name = next((name for name in names if environ.get(name)), None)
    if name and environ[name] != "http/protobuf":
        raise ValueError(f"{name}={environ[name]}: the router speaks http/protobuf; collectors hear it at port 4318.")
    # What the environment says of the service takes precedence over its usual name.
    resource = Resource.create({"service.name": "tempo-router"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
