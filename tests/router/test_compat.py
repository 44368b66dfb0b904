"""Whatever a client sends reaches the engine, and the engine's answer the client: router and sidecar between them."""

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from support.fake_engine import MODEL
from tempo_api.openai import Endpoint

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there, engine."}]}
OWN = {"vllm_xargs", "priority", "stream_options"}
"""The fields that Tempo writes in."""
PATHS = [endpoint.value for endpoint in Endpoint]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KNOWN = {
    "stream": st.booleans(),
    "max_tokens": st.integers(1, 9),
    "n": st.integers(1, 3),
    "user": st.text(),
    "service_tier": st.sampled_from(["auto", "flex"]),
    "vllm_xargs": st.dictionaries(st.text(), JSON, max_size=3),
    "stream_options": st.dictionaries(st.sampled_from(["include_usage", "odd"]), st.booleans()),
    **dict.fromkeys(("messages", "input", "instructions", "tools", "response_format", "logprobs", "stop"), JSON),
}
READ = {*KNOWN, "model", "prompt", "max_completion_tokens", "max_output_tokens", "priority"}
BODIES = st.builds(
    lambda unknown, known: unknown | known | {"model": MODEL},
    st.dictionaries(st.text().filter(lambda name: name not in READ), JSON, max_size=4),
    st.fixed_dictionaries({}, optional=KNOWN),
)


def without(names, body):
    return {name: value for name, value in body.items() if name not in names}


@settings(max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, path=st.sampled_from(PATHS), ascii_only=st.booleans())
async def test_what_reaches_the_engine_is_what_was_sent_but_for_what_tempo_writes(pair, body, path, ascii_only):
    router, engine = pair
    status, _, answer = await router.post(json.dumps(body, ensure_ascii=ascii_only).encode(), path)
    assert (status, b'"error"' in answer) == (200, False)
    got = json.loads(engine.raw.pop())
    assert without(OWN, got) == without(OWN, body)
    reserved = {name for name in got["vllm_xargs"] if name.startswith("tempo_")}
    assert without(reserved, got["vllm_xargs"]) == without(reserved, body.get("vllm_xargs", {}))
    options, asked = got.get("stream_options", {}), body.get("stream_options", {})
    assert without({"include_usage"}, options) == without({"include_usage"}, asked)


RICH = {
    **ASK,
    "messages": [
        {"role": "developer", "content": "Be brief.", "name": "dev"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it? é\u2028😀"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
            ],
        },
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "4"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "logprobs": True,
    "top_logprobs": 5,
    "logit_bias": {"50256": -100},
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}, "strict": True}},
    "structured_outputs": {"regex": r"\d+"},
    "n": 2,
    "seed": 2**62,
    "metadata": None,
    "chat_template_kwargs": {"enable_thinking": False},
}


async def test_tools_images_logprobs_choices_and_structured_output_pass(pair):
    router, engine = pair
    await router.post(RICH | {"stream": True})
    assert without(OWN, engine.bodies[0]) == without(OWN, RICH | {"stream": True})


async def test_numbers_beyond_any_float_or_integer_type_and_escapes_pass_as_they_were_written(pair):
    router, engine = pair
    odd = b'{"big": 123456789012345678901234567890, "e": 1E-3, "text": "\\u00e9\\/", "twice": {"a": 1, "a": 2}}'
    await router.post(b'{"model": "%b", "odd": %b}' % (MODEL.encode(), odd))
    assert odd in engine.raw[0]


@pytest.mark.parametrize("value", [b"1e400", b"NaN", b"-Infinity", b'"\\ud800"', b'"\xff"'])
async def test_what_not_every_json_parser_takes_is_refused_and_reaches_no_engine(pair, value):
    router, engine = pair
    status, _, answer = await router.post(b'{"odd": %b}' % value)
    assert (status, json.loads(answer)["error"]["code"], engine.raw) == (400, "bad_json", [])


async def test_a_compressed_body_reaches_the_engine_plain(pair):
    router, engine = pair
    status, *_ = await router.post(gzip.compress(json.dumps(ASK).encode()), **{"content-encoding": "gzip"})
    assert (status, without(OWN, engine.bodies[0])) == (200, ASK)


TRACE = {
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
    "baggage": "userId=alice,serverNode=DF%2028;prop",
}


@pytest.mark.parametrize("path", [*PATHS, "/v1/embeddings"])
async def test_trace_headers_and_the_request_id_go_on_unchanged(pair, path):
    router, engine = pair
    await router.post(ASK, path, **TRACE, **{"x-request-id": "mine"})
    got = CIMultiDict(engine.headers[-1])
    assert {name: got[name] for name in (*TRACE, "x-request-id")} == TRACE | {"x-request-id": "mine"}


@pytest.mark.parametrize("path", ["/v1/rerank", "/tokenize"])
async def test_other_endpoints_pass_with_every_field_but_what_only_tempo_may_say(pair, path):
    router, _ = pair
    body = {"model": "m", "input": ["a", [1, 2]], "dimensions": 2, "odd": None}
    status, _, answer = await router.post(body | {"priority": -1, "vllm_xargs": {"tempo_slo_class": "vip"}}, path)
    assert (status, json.loads(answer)) == (200, body | {"vllm_xargs": {}})
