import asyncio
import json
import math
from contextlib import asynccontextmanager

import aiohttp
import openai
import pytest
from yarl import URL

from support.fake_engine import MODEL, FakeEngine, chunk, event
from support.serving import QUICKSTART, eventually, serving
from tempo_api.reload import Reloader
from tempo_api.wire import INTAKE_HEADER, Intake, decode_facts, encode_intake
from tempo_sidecar.lengths import WindowLengths
from tempo_sidecar.proxy import Sidecar

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there, engine."}]}
USAGE_ASKED = {"stream_options": {"include_usage": True}}


class Setup:
    """A FakeEngine behind a sidecar, and a client."""

    def __init__(self, engine, url, client):
        self.engine, self.url, self.client = engine, url, client

    async def post(self, body, path="/v1/chat/completions", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body)
        async with self.client.post(self.url + path, data=data, headers=headers) as answer:
            return answer.status, await answer.read()

    async def metric(self, name, **labels):
        async with self.client.get(f"{self.url}/metrics") as answer:
            text = await answer.text()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(part in line for part in wanted))

    def facts(self):
        facts, bad = decode_facts(self.engine.bodies[-1]["vllm_xargs"])
        assert not bad
        return facts


@asynccontextmanager
async def sidecar(engine=None, config=QUICKSTART, **options):
    engine = engine or FakeEngine()
    async with engine.running():
        node = Sidecar(engine.url, Reloader(config), WindowLengths(), **options)
        async with serving(node.app()) as url, aiohttp.ClientSession(auto_decompress=False) as client:
            yield Setup(engine, url, client)


def stream_bytes(tokens, path="/v1/chat/completions", usage=b""):
    events = b"".join(event(chunk(path, i, last=i == tokens - 1)) for i in range(tokens))
    return events + usage + b"data: [DONE]\n\n"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_stream_passes_byte_for_byte_without_the_usage_that_nobody_asked_for(path):
    async with sidecar() as s:
        assert await s.post(CHAT | {"stream": True}, path) == (200, stream_bytes(5, path))
        assert s.engine.bodies[0]["stream_options"] == {"include_usage": True}


async def test_usage_that_was_asked_for_arrives():
    async with sidecar() as s:
        _, body = await s.post(CHAT | {"stream": True} | USAGE_ASKED)
        assert b'"completion_tokens": 5' in body


async def test_usage_on_every_event_is_not_switched_on_behind_the_callers_back():
    async with sidecar() as s:
        await s.post(CHAT | {"stream": True, "stream_options": {"continuous_usage_stats": True}})
        assert s.engine.bodies[0]["stream_options"] == {"include_usage": True}


async def test_a_whole_answer_passes_unchanged_and_without_stream_options():
    async with sidecar() as s:
        status, body = await s.post(CHAT)
        assert (status, json.loads(body)["usage"]["completion_tokens"]) == (200, 5)
        assert "stream_options" not in s.engine.bodies[0]


async def test_the_routers_facts_reach_the_engine_in_absolute_times():
    now = 1_000_000.0
    intake = Intake(slo_class="tool", elapsed_s=2.0, deadline_s=15.0, program="p", program_elapsed_s=7.0, tenant="t")
    async with sidecar(clock=lambda: now) as s:
        await s.post(CHAT, **{INTAKE_HEADER: encode_intake(intake)})
        facts = s.facts()
        assert (facts.slo_class, facts.arrival_s, facts.deadline_s) == ("tool", now - 2, now + 13)
        assert (facts.program, facts.program_arrival_s, facts.tenant) == ("p", now - 9, "t")
        assert s.engine.bodies[0]["priority"] == round((now + 13) * 1e3)
        assert INTAKE_HEADER not in {name.lower() for name in s.engine.headers[0]}


async def test_a_programs_calls_say_what_its_later_stages_took_in_programs_before():
    def call(program, stage, *, last):
        intake = Intake(slo_class="agent", program=program, stage=stage, deadline_s=10.0 * (stage + 1), final=last)
        return {INTAKE_HEADER: encode_intake(intake)}

    async with sidecar() as s:
        for stage, last in enumerate((False, True)):
            await s.post(CHAT, **call("first", stage, last=last))
            assert s.facts().later_output_tokens is None
        assert await s.metric("tempo_sidecar_history_graphs") == 1
        await s.post(CHAT, **call("second", 0, last=False))
        assert s.facts().later_output_tokens == pytest.approx(5, rel=0.2)
        assert s.facts().later_prompt_tokens > 0


async def test_a_late_programs_facts_are_still_well_formed():
    intake = Intake(slo_class="agent", deadline_s=-3.0, program="p")
    async with sidecar() as s:
        await s.post(CHAT, **{INTAKE_HEADER: encode_intake(intake)})
        assert s.facts().deadline_s < s.facts().arrival_s


async def test_without_a_router_the_sidecar_reads_the_public_headers():
    async with sidecar() as s:
        await s.post(CHAT, **{"x-tempo-slo-class": "agent", "x-tempo-program-id": "tree", "x-tempo-program-final": "1"})
        facts = s.facts()
        assert (facts.slo_class, facts.program) == ("agent", "tree")
        assert await s.metric("tempo_sidecar_gain_total", slo_class="agent") == 7 + 2 * 5


@pytest.mark.parametrize("value", ["{", '{"slo_class": 3}', '{"slo_class": "chat", "surprise": 1}'])
async def test_an_intake_that_does_not_parse_is_counted_and_set_aside(value):
    async with sidecar() as s:
        status, _ = await s.post(CHAT, **{INTAKE_HEADER: value})
        assert (status, s.facts().slo_class) == (200, "chat")
        assert await s.metric("tempo_sidecar_intake_malformed_total") == 1


async def test_an_unknown_class_from_the_router_is_served_as_the_default_and_counted():
    async with sidecar() as s:
        await s.post(CHAT, **{INTAKE_HEADER: encode_intake(Intake(slo_class="gone"))})
        assert s.facts().slo_class == "chat"
        assert await s.metric("tempo_sidecar_class_unknown_total") == 1


async def test_what_only_tempo_may_say_is_stripped_from_clients():
    async with sidecar() as s:
        xargs = {"tempo_deadline_s": 1.0, "tempo_anything": "x", "mine": 3}
        await s.post(CHAT | {"vllm_xargs": xargs, "priority": -9}, **{"X-Vllm-Priority": "-9"})
        sent = s.engine.bodies[0]
        assert sent["vllm_xargs"]["mine"] == 3
        assert "tempo_anything" not in sent["vllm_xargs"]
        assert s.facts().deadline_s is None
        assert sent["priority"] > 0
        assert "X-Vllm-Priority" not in s.engine.headers[0]


async def test_a_request_that_meets_its_slo_earns_its_full_gain():
    async with sidecar() as s:
        await s.post(CHAT | {"stream": True})
        assert await s.metric("tempo_sidecar_gain_total", slo_class="chat") == pytest.approx(7 + 2 * 5)
        assert await s.metric("tempo_sidecar_attained_total", slo_class="chat") == 1
        assert await s.metric("tempo_sidecar_output_tokens_total", slo_class="chat") == 5
        assert await s.metric("tempo_sidecar_requests_total", slo_class="chat", outcome="completed") == 1
        assert await s.metric("tempo_sidecar_ttft_seconds_count", slo_class="chat") == 1
        assert await s.metric("tempo_sidecar_tbt_seconds_count", slo_class="chat") == 1


async def test_time_spent_before_the_sidecar_counts_against_the_slo():
    intake = Intake(slo_class="tool", elapsed_s=30.0, deadline_s=15.0)
    async with sidecar() as s:
        await s.post(CHAT, **{INTAKE_HEADER: encode_intake(intake)})
        assert await s.metric("tempo_sidecar_attained_total", slo_class="tool") == 0
        assert await s.metric("tempo_sidecar_ttlt_seconds_sum", slo_class="tool") >= 30
        assert await s.metric("tempo_sidecar_gain_total", slo_class="tool") == pytest.approx((7 + 10) / 2, rel=0.05)


async def test_lengths_are_learned_from_completions_and_the_bounds_coverage_counted():
    async with sidecar(FakeEngine(tokens=3)) as s:
        for _ in range(33):
            await s.post(CHAT | {"stream": True})
        assert s.facts().lengths[2] == 3
        assert await s.metric("tempo_sidecar_length_bound_total") == 33
        assert await s.metric("tempo_sidecar_length_bound_covered_total") == 33


async def test_a_client_that_hangs_up_stops_the_engine():
    async with sidecar(FakeEngine(hold=asyncio.Event())) as s:
        answer = await s.client.post(f"{s.url}/v1/chat/completions", json=CHAT | {"stream": True})
        assert await answer.content.readany() == event(chunk("chat", 0))
        answer.close()
        await eventually(lambda: s.engine.disconnects == 1)
        assert await s.metric("tempo_sidecar_requests_total", outcome="client_closed") == 1
        assert await s.metric("tempo_sidecar_gain_total") == 0


async def test_a_client_that_hangs_up_before_the_first_token_stops_the_engine():
    async with sidecar(FakeEngine(hold=asyncio.Event())) as s:
        post = asyncio.create_task(s.post(CHAT))
        await eventually(lambda: s.engine.bodies)
        post.cancel()
        await eventually(lambda: s.engine.disconnects == 1)


async def test_an_engine_that_dies_mid_stream_ends_it_with_an_error_event():
    async with sidecar(FakeEngine(die_after=2)) as s:
        status, body = await s.post(CHAT | {"stream": True})
        head, _, error = body.rpartition(b"data: [DONE]\n\n")[0].rpartition(b"data: ")
        assert (status, head) == (200, b"".join(event(chunk("chat", i)) for i in range(2)))
        assert json.loads(error)["error"]["code"] == "upstream_failed"
        assert await s.metric("tempo_sidecar_requests_total", outcome="upstream_failed") == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_that_dies_before_the_first_byte_is_a_502(stream):
    async with sidecar(FakeEngine(die_after=0)) as s:
        status, body = await s.post(CHAT | {"stream": stream})
        assert (status, json.loads(body)["error"]["type"]) == (502, "server_error")
        assert await s.metric("tempo_sidecar_requests_total", slo_class="chat", outcome="upstream_failed") == 1


async def test_an_engine_that_is_not_there_is_a_502_and_not_ready():
    node = Sidecar("http://127.0.0.1:9", Reloader(QUICKSTART), WindowLengths())
    async with serving(node.app()) as url, aiohttp.ClientSession() as client:
        for path in ("/v1/models", "/engine/metrics"):
            async with client.get(url + path) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (502, "upstream_failed")
        async with client.get(f"{url}/readyz") as answer:
            assert (answer.status, (await answer.json())["ready"]) == (503, False)
        async with client.get(f"{url}/healthz") as answer:
            assert answer.status == 200


async def test_the_engines_own_refusal_passes_and_earns_nothing():
    async with sidecar(FakeEngine(refuse_with=400)) as s:
        status, body = await s.post(CHAT | {"stream": True})
        assert (status, json.loads(body)["error"]["type"]) == (400, "Fake")
        assert await s.metric("tempo_sidecar_requests_total", outcome="upstream_refused") == 1
        assert await s.metric("tempo_sidecar_gain_total") == 0


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"{", {}, "bad_json"),
        ({"stream": "yes"}, {}, "invalid_value"),
        (CHAT, {"x-tempo-slo-class": "chta"}, "invalid_value"),
        (CHAT, {"x-tempo-deadline-ms": "-1"}, "invalid_value"),
    ],
)
async def test_bad_requests_never_reach_the_engine(body, headers, code):
    async with sidecar() as s:
        status, answer = await s.post(body, **headers)
        assert (status, json.loads(answer)["error"]["code"]) == (400, code)
        assert not s.engine.bodies
        assert await s.metric("tempo_sidecar_requests_total", slo_class="", outcome=code) == 1


async def test_a_body_nested_too_deeply_is_refused_and_leaves_nothing_behind():
    async with sidecar() as s:
        status, answer = await s.post(b'{"tools": ' + b"[" * 1100 + b"]" * 1100 + b"}")
        assert (status, json.loads(answer)["error"]["code"]) == (400, "bad_json")
        async with s.client.get(f"{s.url}/readyz") as state:
            assert (await state.json())["running"] == 0


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
async def test_other_paths_pass_with_method_query_headers_and_body(method):
    async with sidecar() as s:
        url = URL(f"{s.url}/echo?a=%2F&b=1", encoded=True)
        request = s.client.request(method, url, data=b"raw", headers={"x-mine": "1"})
        async with request as answer:
            assert (answer.status, await answer.read()) == (200, b"raw")
            assert (answer.headers["x-method"], answer.headers["x-path"]) == (method, "/echo?a=%2F&b=1")
        assert s.engine.headers[-1]["x-mine"] == "1"


async def test_the_engines_metrics_are_beside_our_own():
    async with sidecar() as s, s.client.get(f"{s.url}/engine/metrics") as answer:
        assert "vllm:num_requests_running" in await answer.text()


async def test_the_engines_health_can_be_asked_however_full_or_far_gone_the_sidecar_is():
    engine = FakeEngine(hold=asyncio.Event())
    async with sidecar(engine, max_in_flight=1) as s:
        first = asyncio.create_task(s.post(CHAT))
        await eventually(lambda: engine.bodies)
        async with s.client.get(f"{s.url}/engine/health") as answer:
            assert answer.status == 200
        engine.hold.set()
        await first
    async with sidecar(FakeEngine(healthy=False)) as s, s.client.get(f"{s.url}/engine/health") as answer:
        assert answer.status == 503


async def test_one_request_too_many_is_told_to_come_back():
    async with sidecar(FakeEngine(hold=asyncio.Event()), max_in_flight=1) as s:
        first = asyncio.create_task(s.post(CHAT))
        await eventually(lambda: s.engine.bodies)
        async with s.client.post(f"{s.url}/v1/chat/completions", json=CHAT) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
            assert answer.headers["x-tempo-dropped-reason"] == "rejected-saturated"
        s.engine.hold.set()
        assert (await first)[0] == 200


async def test_readiness_tells_how_busy_and_how_fast_the_engine_is():
    async with sidecar() as s:
        await s.post(CHAT)
        async with s.client.get(f"{s.url}/readyz") as answer:
            state = await answer.json()
        rate = state.pop("tokens_per_s")
        assert answer.status == 200
        assert state == {"ready": True, "stalled": False, "running": 0, "in_flight": 0, "scheduler": "unknown"}
        assert 0 < rate < math.inf


async def test_openais_client_streams_through_the_sidecar():
    async with sidecar() as s, openai.AsyncOpenAI(api_key="x", base_url=f"{s.url}/v1") as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        text = "".join([part.choices[0].delta.content async for part in stream])
        assert text == " w0 w1 w2 w3 w4"
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="other", messages=[])
