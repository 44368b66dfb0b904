"""The official client against the router, and what passes on the wire."""

import asyncio
import json

import openai
import pytest
from multidict import CIMultiDict

from support.fake_engine import MODEL, FakeEngine, chunk, event
from support.processes import until
from support.serving import eventually
from tempo_api.wire import INTAKE_HEADER, decode_intake
from tempo_router.line import Line

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there, engine."}]}


def intakes(engine):
    return [decode_intake(headers[INTAKE_HEADER]) for headers in engine.headers]


async def test_chat_and_completions_answer_whole_and_streamed(start):
    client = (await start(FakeEngine(tokens=3))).client
    assert (await client.chat.completions.create(**ASK)).choices[0].message.content == " w0 w1 w2"
    stream = await client.chat.completions.create(**ASK, stream=True)
    assert [part.choices[0].delta.content async for part in stream] == [" w0", " w1", " w2"]
    assert (await client.completions.create(model=MODEL, prompt="x")).choices[0].text == " w0 w1 w2"
    stream = await client.completions.create(model=MODEL, prompt="x", stream=True)
    assert [part.choices[0].text async for part in stream] == [" w0", " w1", " w2"]


async def test_the_router_itself_says_which_model_it_serves(start):
    client = (await start("http://127.0.0.1:9")).client
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).object == "model"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-4")


async def test_a_wrong_model_is_not_found_and_the_error_names_the_right_one(start):
    client = (await start(FakeEngine())).client
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(**ASK | {"model": "gpt-4"})
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert MODEL in caught.value.message


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "bad_json"),
        (b"[]", {}, 400, "bad_json"),
        (ASK | {"stream": "yes"}, {}, 400, "invalid_value"),
        (ASK, {"x-tempo-slo-class": "gold"}, 400, "invalid_value"),
        (ASK, {"x-tempo-deadline-ms": "-1"}, 400, "invalid_value"),
        (b"x" * 100_001, {}, 413, "request_too_large"),
    ],
)
async def test_a_bad_request_gets_an_error_of_openai_s_shape_and_reaches_no_engine(start, body, headers, status, code):
    engine = FakeEngine()
    router = await start(engine)
    got, _, raw = await router.post(body, **headers)
    assert (got, json.loads(raw)["error"]["code"], engine.bodies) == (status, code, [])


async def test_an_unknown_path_is_not_found_in_openai_s_shape(start):
    router = await start(FakeEngine())
    status, _, raw = await router.post(ASK, "/v2/chat")
    assert (status, json.loads(raw)["error"]["code"]) == (404, "unknown_url")


async def test_the_engine_s_own_refusal_passes_as_it_is(start):
    router = await start(FakeEngine(refuse_with=422))
    status, _, raw = await router.post(ASK)
    assert (status, json.loads(raw)["error"]["type"]) == (422, "Fake")
    assert await router.metric("tempo_router_requests_total", slo_class="chat", outcome="upstream_refused") == 1


async def test_a_stream_passes_byte_for_byte(start):
    router = await start(FakeEngine(tokens=3))
    _, _, raw = await router.post(ASK | {"stream": True})
    events = [event(chunk("/v1/chat/completions", i, last=i == 2)) for i in range(3)]
    assert raw == b"".join(events) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_everything_else_under_v1_passes_through_with_method_query_and_body(start, method):
    router = await start(FakeEngine())
    async with router.session.request(method, f"{router.url}/v1/echo?x=%20y", data=b"\x00raw") as answer:
        assert (answer.headers["x-method"], answer.headers["x-path"]) == (method, "/v1/echo?x=%20y")
        assert await answer.read() == b"\x00raw"
    assert await router.metric("tempo_router_requests_total", slo_class="", outcome="completed") == 1


async def test_the_body_goes_on_unchanged_with_what_the_router_made_of_it_beside(start):
    engine = FakeEngine()
    router = await start(engine)
    forged = {INTAKE_HEADER: '{"slo_class":"vip"}', "x-request-id": "abc", "Authorization": "Bearer k"}
    await router.post(ASK | {"odd": [1.5]}, **forged)
    [intake] = intakes(engine)
    assert engine.bodies == [ASK | {"odd": [1.5]}]
    assert (intake.slo_class, len(intake.tenant)) == ("chat", 16)
    assert 0 <= intake.elapsed_s < 5
    assert CIMultiDict(engine.headers[0])["x-request-id"] == "abc"


async def test_a_request_without_an_id_gets_one(start):
    engine = FakeEngine()
    router = await start(engine)
    await router.post(ASK)
    await router.post(ASK)
    assert len({CIMultiDict(headers)["x-request-id"] for headers in engine.headers}) == 2


async def test_the_answer_tells_which_replica_and_how_long_it_was_held(start):
    router = await start(FakeEngine())
    _, headers, _ = await router.post(ASK)
    assert headers["x-tempo-replica"] == "r0"
    assert 0 <= int(headers["x-tempo-queue-ms"]) < 5000


async def test_stages_of_a_program_are_inferred_and_its_outcome_is_counted_at_its_end(start):
    engine = FakeEngine(tokens=4, prompt_tokens=6)
    router = await start(engine)
    program = {"x-tempo-slo-class": "agent", "x-tempo-program-id": "p"}
    await asyncio.gather(*(router.post(ASK, **program) for _ in range(3)))
    assert await router.metric("tempo_router_gain_total", slo_class="agent") == 0
    await router.post(ASK, **program, **{"x-tempo-program-final": "1"})
    assert [intake.stage for intake in intakes(engine)] == [0, 0, 0, 1]
    assert intakes(engine)[3].banked_gain == 3 * (6 + 2 * 4)
    assert await router.metric("tempo_router_programs_attained_total", slo_class="agent") == 1
    assert await router.metric("tempo_router_gain_total", slo_class="agent") == 4 * (6 + 2 * 4)


async def test_what_is_to_come_of_a_program_is_known_once_another_like_it_has_ended(start, monkeypatch):
    left = []

    async def wait(line, turn):
        left.append(turn.forecast.output_tokens_left)
        return await as_ever(line, turn)

    as_ever = Line.wait
    monkeypatch.setattr(Line, "wait", wait)
    router = await start(FakeEngine(tokens=4, prompt_tokens=6))
    for name in ("first", "second"):
        program = {"x-tempo-slo-class": "agent", "x-tempo-program-id": name}
        await router.post(ASK, **program)
        await router.post(ASK, **program, **{"x-tempo-program-final": "1"})
    assert left == pytest.approx([0.0, 0.0, 4.0, 0.0], rel=0.02)


async def test_requests_are_counted_by_class_with_their_gain_and_times(start):
    router = await start(FakeEngine(tokens=4, prompt_tokens=6))
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    await router.post(ASK | usage, **{"x-slo-ttft-ms": "1"})
    assert await router.metric("tempo_router_requests_total", slo_class="chat", outcome="completed") == 1
    assert await router.metric("tempo_router_attained_total", slo_class="chat") == 1
    assert await router.metric("tempo_router_gain_total", slo_class="chat") == pytest.approx(6 + 2 * 4)
    assert await router.metric("tempo_router_clamped_total", what="ttft") == 1
    for name in ("ttft", "tbt", "ttlt", "queue"):
        assert await router.metric(f"tempo_router_{name}_seconds_count", slo_class="chat") == 1


async def test_a_client_that_hangs_up_stops_the_engine_and_the_books_are_closed(start):
    engine = FakeEngine(hold=asyncio.Event())
    router = await start(engine)
    program = {"x-tempo-slo-class": "agent", "x-tempo-program-id": "p"}
    stream = await router.client.chat.completions.create(**ASK, stream=True, extra_headers=program)
    await anext(aiter(stream))
    await stream.close()
    await eventually(lambda: engine.disconnects == 1)
    engine.hold.set()
    await router.post(ASK, **program)
    assert await router.metric("tempo_router_requests_total", slo_class="agent", outcome="client_closed") == 1
    assert await router.metric("tempo_router_in_flight", replica="r0") == 0
    assert [intake.stage for intake in intakes(engine)] == [0, 0]


async def test_a_changed_file_takes_effect_and_a_broken_one_changes_nothing(start):
    router = await start(FakeEngine())
    text = router.manifest.read_text()

    async def renamed():
        return (await router.client.models.list()).data[0].id == "other"

    router.manifest.write_text("nonsense: [")
    router.manifest.write_text(text.replace(f"model: {MODEL}", "model: other"))
    await until(renamed, within_s=5)
    router.manifest.write_text("nonsense: [")
    await asyncio.sleep(1.2)  # longer than the file is left unread
    assert await renamed()
