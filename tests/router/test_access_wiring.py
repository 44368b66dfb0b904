"""What a key may have, and what the log says, of completions."""

import asyncio
import json

import pytest
from multidict import CIMultiDict

from support.access import guarded, write_keys
from support.fake_engine import MODEL, FakeEngine
from support.serving import eventually
from tempo_api.wire import INTAKE_HEADER
from tempo_router.access import AccessLog, Gate, Lines

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there, engine."}]}
KEY = "sk-aaaaaaaa"


def keys(folder, **fields):
    return Gate(write_keys(folder / "keys.yaml", {"name": "team-a", "key": KEY} | fields))


async def test_a_key_s_name_is_the_tenant_whatever_the_request_claims_and_the_key_stays_here(tmp_path):
    engine = FakeEngine()
    async with guarded(engine, tmp_path, keys(tmp_path)) as router:
        claim = {"x-llm-d-inference-fairness-id": "team-b"}
        assert (await router.ask(CHAT, key=KEY, json=ASK, headers=claim))[0] == 200
        await router.ask(key=KEY, data=b"x")
    [completion, other] = map(CIMultiDict, engine.headers)
    assert json.loads(completion[INTAKE_HEADER])["tenant"] == "team-a"
    assert "authorization" not in completion
    assert "authorization" not in other


async def test_without_keys_an_authorization_goes_on_to_the_engine(tmp_path):
    engine = FakeEngine()
    async with guarded(engine, tmp_path) as router:
        await router.ask(CHAT, key=KEY, json=ASK)
    assert CIMultiDict(engine.headers[0])["authorization"] == f"Bearer {KEY}"


async def test_a_class_that_the_key_may_not_use_is_403_and_names_those_that_it_may(tmp_path):
    engine = FakeEngine()
    async with guarded(engine, tmp_path, keys(tmp_path, classes=["batch"])) as router:
        status, _, body = await router.ask(CHAT, key=KEY, json=ASK, headers={"x-tempo-slo-class": "chat"})
        assert (status, body["error"]["code"]) == (403, "class_not_allowed")
        assert "may use batch" in body["error"]["message"]
        assert (await router.ask(CHAT, key=KEY, json=ASK))[0] == 200
    assert json.loads(CIMultiDict(engine.headers[0])[INTAKE_HEADER])["slo_class"] == "batch"


async def test_a_class_s_ceiling_leaves_the_key_s_other_classes_alone(tmp_path):
    engine = FakeEngine(hold=asyncio.Event())
    async with guarded(engine, tmp_path, keys(tmp_path, ceilings={"chat": 1})) as router:
        running = asyncio.ensure_future(router.ask(CHAT, key=KEY, json=ASK | {"stream": True}))
        await eventually(lambda: engine.bodies)
        status, headers, body = await router.ask(CHAT, key=KEY, json=ASK)
        assert (status, headers["x-tempo-dropped-reason"]) == (429, "rejected-saturated")
        assert "1 requests of class chat in flight" in body["error"]["message"]
        other = asyncio.ensure_future(router.ask(CHAT, key=KEY, json=ASK, headers={"x-tempo-slo-class": "batch"}))
        await eventually(lambda: len(engine.bodies) == 2)
        engine.hold.set()
        assert [(await running)[0], (await other)[0]] == [200, 200]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_completion_s_line_tells_its_class_tenant_times_tokens_and_ending(tmp_path, stream):
    path = tmp_path / "access.log"
    parts = (keys(tmp_path), AccessLog(Lines(path)))
    async with guarded(FakeEngine(tokens=5, prompt_tokens=7), tmp_path, *parts) as router:
        body = ASK | {"stream": stream, "stream_options": {"include_usage": True} if stream else None}
        await router.ask(CHAT, key=KEY, json=body, headers={"x-request-id": "abc"})
        await router.ask(CHAT, key=KEY, data=b"{")
    told, refused = map(json.loads, path.read_text().splitlines())
    assert (told["id"], told["class"], told["tenant"], told["ending"]) == ("abc", "chat", "team-a", "completed")
    assert (told["tokens_in"], told["tokens_out"]) == (7, 5)
    assert 0 <= told["ttft_ms"] <= told["duration_ms"] + 1
    assert (refused["ending"], refused["tenant"], refused["class"]) == ("bad_json", "team-a", None)
