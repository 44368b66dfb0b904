"""Spans of requests, as a collector gets them; and headers that stay as they are where nobody asks for any."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from support.access import MANIFEST, write_keys
from support.fake_engine import MODEL, FakeEngine
from support.processes import until
from support.router_trial import QUICK
from support.serving import QUICKSTART, serving
from tempo_api.reload import Reloader
from tempo_router.access import AccessLog, Gate, Lines
from tempo_router.app import build_app
from tempo_router.cli import router
from tempo_router.tracing import FLUSH_S, open_tracing

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "PROMPT"}]}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
FROM_CLIENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"}
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]")


class FakeCollector:
    """A stand-in for an OpenTelemetry collector: keeps what it gets over OTLP."""

    def __init__(self):
        self.bodies, self.resources, self.spans, self.url = [], [], [], ""

    @asynccontextmanager
    async def running(self):
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        async with serving(app) as self.url:
            yield self

    async def _take(self, request):
        self.bodies.append(await request.read())
        for of_resource in ExportTraceServiceRequest.FromString(self.bodies[-1]).resource_spans:
            self.resources.append(plain(of_resource.resource.attributes))
            for of_scope in of_resource.scope_spans:
                self.spans += of_scope.spans
        return web.Response(content_type="application/x-protobuf")


class Traced:
    """A router that makes spans, and a client."""

    def __init__(self, url, session):
        self.url, self.session = url, session

    async def ask(self, path=CHAT, method="POST", **options):
        async with self.session.request(method, self.url + path, **({"json": ASK} | options)) as answer:
            await answer.read()
            return answer.status

    async def ready(self):
        return await self.ask("/readyz", "GET", json=None) == 200

    async def holds(self):
        async with self.session.get(f"{self.url}/metrics") as answer:
            return re.search(r"^tempo_router_held\{.*} [1-9]", await answer.text(), re.MULTILINE)


@pytest.fixture
async def collector(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    async with FakeCollector().running() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        yield collector


@asynccontextmanager
async def routing(folder, *engines, parts=(), traced=True):
    """A router before these engines; when it ends, its last spans have left."""
    path = folder / "pool.yaml"
    path.write_text(MANIFEST.replace("default: true", "default: true, overload: {maxQueueTime: 300ms}"))
    async with AsyncExitStack() as stack:
        for engine in engines:
            await stack.enter_async_context(engine.running())
        replicas = {f"r{i}": engine.url for i, engine in enumerate(engines)}
        app = build_app(
            Reloader(path), replicas, limits=QUICK, tracing=open_tracing(ENDPOINT, os.environ) if traced else None
        )
        for part in parts:
            part.install(app)
        router = Traced(await stack.enter_async_context(serving(app)), None)
        router.session = await stack.enter_async_context(aiohttp.ClientSession())
        if any(engine.healthy for engine in engines):
            await until(router.ready)
        yield router


def plain(attributes):
    """Attributes as a dict."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}


def events(span):
    """Names and attributes, in order of time."""
    return [(event.name, plain(event.attributes)) for event in sorted(span.events, key=lambda e: e.time_unix_nano)]


def lower(headers):
    return {name.lower(): value for name, value in headers.items()}


async def test_a_request_is_one_span_below_the_client_s_and_above_the_engine_s(tmp_path, collector):
    engine = FakeEngine()
    async with routing(tmp_path, engine) as router:
        assert await router.ask(headers=FROM_CLIENT) == 200
    [span], sent = collector.spans, lower(engine.headers[0])
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.kind) == (TRACE, PARENT, Span.SPAN_KIND_SERVER)
    assert sent["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert sent["tracestate"] == FROM_CLIENT["tracestate"]
    assert collector.resources[0]["service.name"] == "tempo-router"


async def test_a_span_says_what_was_asked_for_and_how_it_went(tmp_path, collector):
    async with routing(tmp_path, FakeEngine()) as router:
        await router.ask(headers={"x-tempo-slo-class": "batch", "x-llm-d-inference-fairness-id": "jane@example.com"})
    [span] = collector.spans
    assert span.name == f"POST {CHAT}"
    assert plain(span.attributes) == {
        "http.request.method": "POST", "http.route": CHAT, "url.path": CHAT, "url.scheme": "http",
        "http.response.status_code": 200, "gen_ai.operation.name": "chat", "gen_ai.request.model": MODEL,
        "tempo.slo_class": "batch", "tempo.replica": "r0", "tempo.retries": 0, "tempo.wait_s": 0.0,
        "tempo.ending": "completed",
    }  # fmt: skip
    [first] = span.events
    assert first.name == "tempo.first_token"
    assert span.start_time_unix_nano <= first.time_unix_nano <= span.end_time_unix_nano
    assert span.status.code == Status.STATUS_CODE_UNSET


async def test_probes_have_no_spans_and_other_requests_have_their_routes(tmp_path, collector):
    async with routing(tmp_path, FakeEngine()) as router:
        for path, method in [("/v1/echo", "PATCH"), ("/no/where", "POST"), ("/metrics", "GET")]:
            await router.ask(path, method)
    assert [(span.name, plain(span.attributes)["url.path"]) for span in collector.spans] == [
        ("PATCH /v1/{path}", "/v1/echo"),
        ("POST", "/no/where"),
    ]


async def test_no_span_holds_a_prompt_an_answer_a_query_or_a_key(tmp_path, collector):
    keys, path = write_keys(tmp_path / "keys.yaml", {"name": "team-a", "key": "SECRET-1"}), tmp_path / "access.log"
    async with routing(tmp_path, FakeEngine(), parts=[Gate(keys), AccessLog(Lines(path))]) as router:
        for key in ("SECRET-1", "SECRET-2"):
            headers = {"Authorization": f"Bearer {key}", "x-session-id": "SESSION"}
            await router.ask(f"{CHAT}?api_key={key}", json=ASK | {"user": "JANE"}, headers=headers)
    assert not re.search(rb"SECRET|PROMPT|JANE|SESSION| w0|api_key", b"".join(collector.bodies))
    served, refused = (plain(span.attributes) for span in collector.spans)
    assert (served["tempo.tenant"], served["tempo.ending"]) == ("team-a", "completed")
    assert (refused["http.response.status_code"], refused["tempo.ending"]) == (401, "unauthorized")
    assert [json.loads(line)["ending"] for line in path.read_text().splitlines()] == ["completed", "unauthorized"]


async def test_a_request_that_is_held_says_for_how_long(tmp_path, collector):
    engine = FakeEngine(healthy=False)
    async with routing(tmp_path, engine) as router:
        asking = asyncio.ensure_future(router.ask(headers={"x-tempo-slo-class": "batch"}))
        await until(router.holds)
        engine.healthy = True
        assert await asking == 200
    [span] = collector.spans
    assert 0 < plain(span.attributes)["tempo.wait_s"] < 5
    assert events(span) == [("tempo.held", {}), ("tempo.released", {"tempo.replica": "r0"}), ("tempo.first_token", {})]


async def test_a_request_that_is_shed_says_why(tmp_path, collector):
    async with routing(tmp_path, FakeEngine(healthy=False)) as router:
        assert await router.ask() == 503
    [span] = collector.spans
    assert events(span) == [("tempo.held", {}), ("tempo.shed", {"tempo.reason": "rejected-no-endpoints"})]
    said = plain(span.attributes)
    assert (said["error.type"], said["http.response.status_code"]) == ("no_replica", 503)
    assert 0.3 <= said["tempo.wait_s"] < 3
    assert span.status.code == Status.STATUS_CODE_ERROR


async def test_tries_are_events_of_one_span(tmp_path, collector):
    engines = FakeEngine(refuse_with=503), FakeEngine(refuse_with=503)
    async with routing(tmp_path, *engines) as router:
        assert await router.ask() == 503
    [span] = collector.spans
    said = plain(span.attributes)
    assert said["tempo.retries"] == 1
    assert events(span)[0] == ("tempo.retried", {"tempo.replica": said["tempo.replica"]})
    assert {lower(engine.headers[0])["traceparent"][36:52] for engine in engines} == {span.span_id.hex()}


async def test_a_stream_that_breaks_is_an_error_though_its_status_was_200(tmp_path, collector):
    async with routing(tmp_path, FakeEngine(die_after=2)) as router:
        assert await router.ask(json=ASK | {"stream": True}) == 200
    [span] = collector.spans
    said = plain(span.attributes)
    assert (said["http.response.status_code"], said["error.type"]) == (200, "upstream_failed")


async def test_a_client_that_leaves_is_no_error(tmp_path, collector):
    engine = FakeEngine(hold=asyncio.Event())
    async with routing(tmp_path, engine) as router:
        asking = asyncio.ensure_future(router.ask())
        await until(lambda: engine.bodies)
        asking.cancel()
        await until(lambda: engine.disconnects)
    [span] = collector.spans
    assert plain(span.attributes)["tempo.ending"] == "client_closed"
    assert span.status.code == Status.STATUS_CODE_UNSET


@pytest.mark.parametrize(
    ("environ", "flags"),
    [({"OTEL_TRACES_SAMPLER": "always_off"}, "01"), ({}, "00")],
    ids=["by the environment", "by the client"],
)
async def test_what_is_not_sampled_goes_on_in_its_trace_and_is_not_exported(
    tmp_path, collector, monkeypatch, environ, flags
):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    engine = FakeEngine()
    async with routing(tmp_path, engine) as router:
        assert await router.ask(headers={"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}) == 200
    assert re.fullmatch(rf"00-{TRACE}-(?!{PARENT})[0-9a-f]{{16}}-00", lower(engine.headers[0])["traceparent"])
    assert not collector.bodies


async def test_the_environment_names_the_service(tmp_path, collector, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "chat-router")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=p-0")
    async with routing(tmp_path, FakeEngine()) as router:
        await router.ask()
    [resource] = collector.resources
    assert (resource["service.name"], resource["k8s.pod.name"]) == ("chat-router", "p-0")


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=60)
            | st.sampled_from(["", f"00-{TRACE}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01"]),
            st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=60),
            st.sampled_from(["", "/%ff%00", "/%ed%a0%80", "/" + "x" * 5000]),
        ),
        min_size=1,
        max_size=8,
    )
)
async def test_whatever_a_client_sends_the_span_arrives_and_the_engine_gets_a_good_parent(tmp_path, collector, asked):
    engine, before = FakeEngine(), len(collector.spans)
    async with routing(tmp_path, engine) as router:
        for parent, state, path in asked:
            headers = {"traceparent": parent, "tracestate": state}
            assert await router.ask("/v1/echo" + path, headers=headers) in {200, 404}
    assert len(collector.spans) - before == len(asked)
    assert all(TRACEPARENT.fullmatch(lower(headers)["traceparent"]) for headers in engine.headers)


async def test_the_state_of_a_trace_that_is_not_gone_on_with_stays_behind(tmp_path, collector):
    engine = FakeEngine()
    async with routing(tmp_path, engine) as router:
        await router.ask(headers={"traceparent": "nonsense", "tracestate": "rojo=1"})
        await router.ask(headers=[*FROM_CLIENT.items(), ("tracestate", "lines=2")])
    anew, on = map(lower, engine.headers)
    assert "tracestate" not in anew
    assert on["tracestate"] == FROM_CLIENT["tracestate"] + ",lines=2"
    assert not collector.spans[0].parent_span_id


async def test_without_tracing_headers_go_on_byte_for_byte(tmp_path, collector):
    engine = FakeEngine()
    headers = {"traceparent": "00-NONSENSE", "tracestate": "a=1 ,, b", "baggage": "userId=1"}
    async with routing(tmp_path, engine, traced=False) as router:
        await router.ask(headers=headers)
    assert lower(engine.headers[0]).items() >= headers.items()
    assert not collector.bodies


@pytest.mark.parametrize("listens", [False, True], ids=["gone", "hangs"])
async def test_a_dead_collector_holds_up_neither_requests_nor_the_end(tmp_path, collector, monkeypatch, listens):
    with socket.create_server(("127.0.0.1", 0)) as dead:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{dead.getsockname()[1]}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "8")
        before = set(threading.enumerate())
        if not listens:
            dead.close()
        async with routing(tmp_path, FakeEngine()) as router:
            assert {await router.ask() for _ in range(20)} == {200}
            ending_s = time.monotonic()
        assert time.monotonic() - ending_s < FLUSH_S + 5  # the SDK itself gives up after 8 at the earliest
        for thread in set(threading.enumerate()) - before:
            # The SDK's own: they draw random waits, which disturbs those of hypothesis in whatever test comes next.
            if thread.daemon:
                await asyncio.to_thread(thread.join, 30.0)


def run(*args):
    result = CliRunner().invoke(router, ["--config", str(QUICKSTART), "--replica", "r0=http://127.0.0.1:9", *args])
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({ENDPOINT: "collector:4318"}, f"{ENDPOINT}=collector:4318: write a URL such as"),
        ({ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "the router speaks http/protobuf"),
        ({ENDPOINT: "http://c", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "max_queue_size must be a positive integer"),
    ],
)
def test_an_environment_that_asks_for_what_can_t_be_done_is_refused_in_one_line(monkeypatch, environ, problem):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    result = run()
    assert result.exit_code == 1
    assert problem in result.output


@pytest.fixture
def uninstalled(monkeypatch):
    """As if OpenTelemetry were not installed."""
    monkeypatch.delitem(sys.modules, "tempo_router.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")


@pytest.mark.usefixtures("uninstalled")
def test_traces_without_the_package_are_refused_with_the_remedy():
    result = run()
    assert result.exit_code == 1
    assert f"pip install 'tempo-serving[otel]', or unset {ENDPOINT}" in result.output


@pytest.mark.usefixtures("uninstalled")
@pytest.mark.parametrize(
    ("name", "value"), [(ENDPOINT, ""), ("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")]
)
def test_the_package_is_not_missed_where_nobody_asks_for_traces(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert "nowhere/log can't be written" in run("--access-log", "/nowhere/log").output  # which is looked at later


async def test_the_command_sends_its_last_spans_before_it_ends(tmp_path, collector):
    tempo = Path(sys.executable).with_name("tempo")
    command = [tempo, "router", "--config", QUICKSTART, "--port", "0", "--replica", "r0=http://127.0.0.1:9"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    url = (await process.stdout.readline()).decode().split()[-1]
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/models") as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 20) == 0
    assert [span.name for span in collector.spans] == ["GET /v1/models"]
