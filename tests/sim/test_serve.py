"""The simulated engine as a server: OpenAI's API, real time, and the pool's own policy."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import openai
import pytest
import yaml
from aiohttp import web

from support.k8s.samples import a_pool, chat_class
from support.serving import eventually
from tempo_api.reload import Reloader
from tempo_api.wire import Facts, encode_facts
from tempo_sim.profiles import LLAMA_8B_H100
from tempo_sim.serve import Server

QUICK = replace(LLAMA_8B_H100, decode_base_s=2e-3, prefill_base_s=2e-3)
ONE_PLACE = replace(QUICK, max_places=1)
CHAT = "/v1/chat/completions"
FORCED = {"vllm_xargs": {"forced_output_tokens": 4}}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "pool.yaml"
    batch = chat_class("batch", pattern="BestEffort", objectives={}, default=False)
    pool = a_pool("ns", model="m", engine={"kind": "Simulated"}, scheduler={"policy": "tempo"})
    path.write_text(yaml.safe_dump_all([chat_class(), batch, pool]))
    return path


@asynccontextmanager
async def listening(config, profile=QUICK):
    """Its URL."""
    app = Server(Reloader(config), profile).app()
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving(config, profile=QUICK):
    """A client of it."""
    async with listening(config, profile) as url, aiohttp.ClientSession(url) as session:
        yield session


@asynccontextmanager
async def official(config):
    """OpenAI's own client."""
    async with (
        listening(config) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def ask(tokens=5, facts=None, **body):
    xargs = {"forced_output_tokens": tokens, **encode_facts(facts or Facts())}
    return {"messages": [{"role": "user", "content": "hello"}], "vllm_xargs": xargs, **body}


async def test_an_answer_says_that_it_is_simulated_and_counts_its_tokens(config):
    async with serving(config) as session, session.post(CHAT, json=ask(9)) as answer:
        body = await answer.json()
    assert body["choices"][0]["message"]["content"] == "Simulated answer: no model runs here, only its pace."
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == 9


async def test_a_stream_has_an_event_a_token_and_its_usage_if_asked_for(config):
    wanted = ask(4, stream=True, stream_options={"include_usage": True}, max_tokens=4)
    async with serving(config) as session, session.post(CHAT, json=wanted) as answer:
        lines = [line[6:] for line in (await answer.text()).split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    events = [json.loads(line) for line in lines]
    assert [event["choices"][0]["delta"]["content"] for event in events[:-1]] == [
        "Simulated",
        " answer:",
        " no",
        " model",
    ]
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert events[-1]["usage"]["completion_tokens"] == 4


async def test_a_response_is_what_openais_client_reads(config):
    async with official(config) as client:
        whole = await client.responses.create(model="m", input="hello", extra_body=FORCED)
        cut = await client.responses.create(model="m", input="hello", extra_body=FORCED, max_output_tokens=2)
    assert (whole.output_text, whole.status) == ("Simulated answer: no model", "completed")
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (2, 4)
    assert (cut.output_text, cut.status, cut.incomplete_details.reason) == (
        "Simulated answer:",
        "incomplete",
        "max_output_tokens",
    )


async def test_a_streamed_response_has_the_events_that_vllm_sends(config):
    async with official(config) as client:
        stream = await client.responses.create(model="m", input="hello", stream=True, extra_body=FORCED)
        events = [event async for event in stream]
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 4,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events[4:8]) == events[-1].response.output_text
    assert events[-1].response.usage.output_tokens == 4


@pytest.mark.parametrize("text", ["hello", "Žofie 🦊", "four"])
async def test_tokens_become_text_again_and_are_counted_as_in_usage(config, text):
    async with serving(config) as session:
        async with session.post("/tokenize", json={"prompt": text}) as answer:
            found = await answer.json()
        async with session.post("/detokenize", json={"tokens": found["tokens"]}) as answer:
            assert (await answer.json())["prompt"] == text
        asked = {"prompt": text, "max_tokens": 1}
        async with session.post("/v1/completions", json=asked) as answer:
            assert (await answer.json())["usage"]["prompt_tokens"] == found["count"] == len(found["tokens"])


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/tokenize", {}, 400),
        ("/tokenize", {"prompt": "x", "model": "other"}, 404),
        ("/detokenize", {"tokens": "abc"}, 400),
        ("/detokenize", {"tokens": [-1]}, 400),
        ("/v1/responses", {}, 400),
        ("/v1/embeddings", {"input": "x"}, 404),
    ],
)
async def test_what_is_wrong_or_not_served_is_an_error_in_openais_shape(config, path, body, status):
    async with serving(config) as session, session.post(path, json=body) as answer:
        assert answer.status == status
        assert "message" in (await answer.json())["error"]


async def test_the_same_prompt_has_an_answer_of_the_same_length_and_no_longer_than_asked_for(config):
    body = {"prompt": "tell me", "max_tokens": 1000}
    async with serving(config) as session:
        lengths = []
        for _ in range(2):
            async with session.post("/v1/completions", json=body) as answer:
                lengths.append((await answer.json())["usage"]["completion_tokens"])
        async with session.post("/v1/completions", json={"prompt": "tell me"}) as answer:
            assert (await answer.json())["usage"]["completion_tokens"] <= 16
    assert lengths[0] == lengths[1]


async def test_time_passes_as_it_is_simulated_to(config):
    loop = asyncio.get_running_loop()
    async with serving(config) as session:
        began = loop.time()
        async with session.post(CHAT, json=ask(50)) as answer:
            await answer.read()
        assert loop.time() - began >= 50 * QUICK.shortest_step_s


async def test_the_policy_reads_what_the_sidecar_wrote(config):
    """With one place, a chat that came last goes before the batch that waits."""
    done = []

    async def send(session, name, facts, tokens):
        async with session.post(CHAT, json=ask(tokens, facts)) as answer:
            await answer.read()
        done.append(name)

    async with serving(config, ONE_PLACE) as session, asyncio.TaskGroup() as group:
        group.create_task(send(session, "first", Facts(slo_class="chat"), 40))
        await asyncio.sleep(0.03)
        group.create_task(send(session, "batch", Facts(slo_class="batch"), 20))
        await asyncio.sleep(0.01)
        group.create_task(send(session, "chat", Facts(slo_class="chat"), 20))
    assert done.index("chat") < done.index("batch")


async def test_a_client_that_leaves_frees_its_place(config):
    async with serving(config, ONE_PLACE) as session:
        leaving = asyncio.create_task(session.post(CHAT, json=ask(100_000)))
        await asyncio.sleep(0.1)
        leaving.cancel()
        async with asyncio.timeout(5), session.post(CHAT, json=ask(3)) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [({"messages": []}, 400), (ask(n=2), 400), (ask(model="other"), 404)],
)
async def test_what_it_cannot_do_is_refused_in_openais_shape(config, body, status):
    async with serving(config) as session, session.post(CHAT, json=body) as answer:
        assert answer.status == status
        assert "message" in (await answer.json())["error"]


async def test_a_prompt_longer_than_the_cache_is_refused(config):
    long = ask(messages=[{"role": "user", "content": "long " * 30}])
    async with serving(config, replace(QUICK, kv_blocks=1)) as session, session.post(CHAT, json=long) as answer:
        assert answer.status == 400


async def test_it_says_what_it_serves_and_how_it_is(config, tmp_path, monkeypatch):
    status = tmp_path / "status.json"
    monkeypatch.setenv("TEMPO_STATUS_FILE", str(status))
    async with serving(config) as session:
        async with session.get("/v1/models") as answer:
            assert (await answer.json())["data"][0]["id"] == "m"
        async with session.get("/health") as answer:
            assert answer.status == 200
        async with session.get("/metrics") as answer:
            assert "vllm:num_requests_waiting 0.0" in await answer.text()
        await eventually(status.exists)
        written = json.loads(status.read_text())
    assert (written["state"], written["policy"], written["cache_used"]) == ("active", "tempo", 0.0)
    assert written["places"] == QUICK.max_places
