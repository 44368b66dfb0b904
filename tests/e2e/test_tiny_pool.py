"""A whole pool on a real vLLM, through the official client. The tests run in this order: the last ones are rough."""

import asyncio
import re
import signal
import time
import urllib.request
from itertools import islice, pairwise

import openai
import pytest

from support.processes import until, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

FOREVER = {"max_tokens": 3900, "temperature": 0, "extra_body": {"ignore_eos": True}}
"""Several seconds of output, unless something stops it."""


@pytest.fixture
def client(tiny_pool):
    with openai.OpenAI(base_url=tiny_pool.url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


def stream(client, **options):
    return client.completions.create(model="tiny", prompt="once upon a time", stream=True, **options)


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def running_requests(pool):
    metrics = get(f"{pool.parts['sidecar-0']['url']}/engine/metrics")
    return float(re.search(r"^vllm:num_requests_running\{.*\} (\S+)$", metrics, re.MULTILINE)[1])


def test_models_chat_and_completions_answer_the_official_client(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    chat = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=7, extra_body={"ignore_eos": True}
    )
    assert chat.usage.completion_tokens == 7
    assert chat.choices[0].finish_reason == "length"
    text = client.completions.create(model="tiny", prompt="hello", max_tokens=5, extra_body={"ignore_eos": True})
    assert text.usage.completion_tokens == 5


@pytest.mark.parametrize("asked", ["hello", [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]])
def test_responses_answer_the_official_client_whole_and_streamed(client, asked):
    options = {"model": "tiny", "input": asked, "max_output_tokens": 7, "extra_body": {"ignore_eos": True}}
    whole = client.responses.create(**options)
    assert (whole.status, whole.usage.output_tokens) == ("incomplete", 7)
    events = list(client.responses.create(**options, stream=True))
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.output_tokens == 7
    assert any(event.type == "response.output_text.delta" for event in events)


async def test_a_late_urgent_request_overtakes_long_ones(tiny_pool):
    """Eight at a time fit into the engine: first come, first served, the 33rd would start after all the others."""

    async def call(client, slo_class, tokens):
        await client.completions.create(
            model="tiny",
            prompt="hello",
            max_tokens=tokens,
            extra_body={"ignore_eos": True},
            extra_headers={"x-tempo-slo-class": slo_class},
        )

    async with openai.AsyncOpenAI(base_url=tiny_pool.url, api_key="none", max_retries=0, timeout=120) as client:
        long = [asyncio.create_task(call(client, "tool", 300)) for _ in range(32)]
        await until(lambda: running_requests(tiny_pool) == 8)
        await call(client, "chat", 5)
        assert sum(not task.done() for task in long) >= 16
        await asyncio.gather(*long)


def test_the_scheduler_in_the_engine_is_tempos(tiny_pool, client):
    client.completions.create(model="tiny", prompt="hello", max_tokens=5)
    metrics = f"{tiny_pool.parts['sidecar-0']['url']}/metrics"
    wait_until(lambda: re.search(r"^tempo_engine_scheduler_active 1\.0$", get(metrics), re.MULTILINE))


def test_a_stream_arrives_token_by_token(client):
    began = time.monotonic()
    times = [time.monotonic() for _ in stream(client, max_tokens=400, temperature=0, extra_body={"ignore_eos": True})]
    took = times[-1] - began
    assert len(times) >= 100
    assert times[0] - began < took / 2
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) < took / 2


def test_a_cancelled_stream_stops_the_engine(tiny_pool, client):
    with stream(client, **FOREVER) as chunks:
        assert len(list(islice(chunks, 20))) == 20
        wait_until(lambda: running_requests(tiny_pool) == 1)
    since = time.monotonic()
    wait_until(lambda: running_requests(tiny_pool) == 0)
    assert time.monotonic() - since < 5


def test_errors_reach_the_official_client_in_openais_shape(tiny_pool, client):
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.completions.create(model="no-such-model", prompt="hello")
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="tiny", prompt="hello", max_tokens=-1)
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(model="tiny", prompt="x" * 200_000)
    assert caught.value.status_code == 413
    broken = urllib.request.Request(f"{tiny_pool.url}/completions", b"{", {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        urllib.request.urlopen(broken, timeout=10)
    refused.value.close()


def test_killing_the_engine_ends_the_stream_with_an_error_and_the_engine_comes_back(tiny_pool, client):
    chunks = stream(client, **FOREVER)
    assert len(list(islice(chunks, 20))) == 20
    tiny_pool.process_of("engine-0").kill()
    with pytest.raises(openai.APIError) as caught:
        list(chunks)
    assert set(caught.value.body) >= {"message", "type", "code"}
    wait_until(lambda: "engine-0 is ready again" in tiny_pool.told(), 300)

    def serves_again():
        try:
            return client.completions.create(model="tiny", prompt="hello", max_tokens=3)
        except openai.InternalServerError:  # 503, as long as the router has not seen it come back
            return None

    wait_until(serves_again, 30)


def test_a_killed_tempo_up_leaves_nothing_running(tiny_pool):
    assert len(tiny_pool.mark.alive()) >= 8  # itself, three guards, three parts, the engine's core
    tiny_pool.process.send_signal(signal.SIGKILL)
    wait_until(lambda: not tiny_pool.mark.alive(), 30)
