"""The official client against the router: responses, embeddings, tools, and an exception of the right class."""

import asyncio
import time

import openai
import pytest

from support.fake_engine import MODEL, FakeEngine
from support.processes import until
from support.serving import eventually

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there, engine."}]}
RESPOND = {"model": MODEL, "input": "Hello there, engine."}


async def test_a_response_comes_whole_with_its_usage(start):
    router = await start(FakeEngine(tokens=3, prompt_tokens=6))
    response = await router.client.responses.create(**RESPOND, instructions="Be brief.", max_output_tokens=9)
    assert (response.output_text, response.usage.output_tokens) == (" w0 w1 w2", 3)
    assert await router.metric("tempo_router_gain_total", slo_class="chat") == 6 + 2 * 3


async def test_a_response_streams_and_is_served_by_its_class(start):
    router = await start(FakeEngine(tokens=3, prompt_tokens=6))
    asked = [{"role": "user", "content": [{"type": "input_text", "text": "Hello."}]}]
    headers = {"x-tempo-slo-class": "tool"}
    stream = await router.client.responses.create(model=MODEL, input=asked, stream=True, extra_headers=headers)
    events = [event async for event in stream]
    assert "".join(event.delta for event in events if event.type.endswith(".delta")) == " w0 w1 w2"
    assert events[-1].response.usage.output_tokens == 3
    assert await router.metric("tempo_router_requests_total", slo_class="tool", outcome="completed") == 1
    assert await router.metric("tempo_router_ttlt_seconds_count", slo_class="tool") == 1


async def test_a_response_of_a_program_is_a_call_of_it(start):
    router = await start(FakeEngine(tokens=3, prompt_tokens=6))
    headers = {"x-tempo-slo-class": "agent", "x-tempo-program-id": "p", "x-tempo-program-final": "1"}
    await router.client.responses.create(**RESPOND, extra_headers=headers)
    assert await router.metric("tempo_router_programs_attained_total", slo_class="agent") == 1


async def test_a_broken_off_response_raises(start):
    client = (await start(FakeEngine(tokens=3, die_after=1))).client
    stream = await client.responses.create(**RESPOND, stream=True)
    with pytest.raises(openai.APIError) as caught:
        [event async for event in stream]
    assert caught.value.code == "upstream_failed"


async def test_embeddings_and_tools_are_the_engine_s_business(start):
    engine = FakeEngine()
    client = (await start(engine)).client
    vectors = await client.embeddings.create(model="some-embedder", input=["a", "b"], encoding_format="float")
    assert vectors.data[0].embedding == [0.5, -1.0]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    await client.chat.completions.create(**ASK, tools=[tool], tool_choice="auto")
    assert engine.bodies[-1]["tools"] == [tool]


@pytest.mark.parametrize("path", ["chat.completions", "completions", "responses"])
async def test_the_answer_tells_the_class_that_it_was_served_as(start, path):
    router = await start(FakeEngine())
    for headers, served in (({}, "chat"), ({"x-tempo-slo-class": "tool"}, "tool")):
        _, answer, _ = await router.post(ASK, f"/v1/{path.replace('.', '/')}", **headers)
        assert answer["x-tempo-slo-class"] == served


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
async def test_the_engine_s_refusals_raise_what_they_would_raise_without_a_router(start, status, error):
    client = (await start(FakeEngine(refuse_with=status))).client
    with pytest.raises(error):
        await client.chat.completions.create(**ASK)


async def test_the_router_s_own_refusals_raise_by_class_and_name_the_parameter(start):
    client = (await start(FakeEngine())).client
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(**ASK, extra_headers={"x-tempo-stage": "first"})
    assert (bad.value.code, bad.value.param) == ("invalid_value", "x-tempo-stage")
    with pytest.raises(openai.NotFoundError) as wrong:
        await client.responses.create(model="gpt-5", input="x")
    assert (wrong.value.code, wrong.value.param) == ("model_not_found", "model")


async def test_no_replica_is_a_503_that_says_when_to_come_back(start):
    client = (await start("http://127.0.0.1:9")).client
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(**ASK)
    assert (caught.value.status_code, caught.value.code) == (503, "service_unavailable")
    assert int(caught.value.response.headers["retry-after"]) >= 1


async def test_a_full_router_is_a_rate_limit_and_the_client_comes_back_when_it_is_told(start):
    engine = FakeEngine(hold=asyncio.Event())
    router = await start(engine, max_concurrent=1)
    first = asyncio.create_task(router.client.chat.completions.create(**ASK))
    await eventually(lambda: engine.bodies)
    with pytest.raises(openai.RateLimitError) as caught:
        await router.client.chat.completions.create(**ASK)
    assert caught.value.response.headers["retry-after"] == "1"
    began_s = time.monotonic()
    patient = asyncio.create_task(router.client.with_options(max_retries=1).chat.completions.create(**ASK))

    async def refused():
        return await router.metric("tempo_router_requests_total", outcome="saturated") == 2

    await until(refused)
    engine.hold.set()
    await first
    assert (await patient).choices
    assert time.monotonic() - began_s >= 1
