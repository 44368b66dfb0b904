"""Whatever comes in: the router goes on serving, is never at fault, and says in OpenAI's shape what is wrong."""

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.fake_engine import MODEL
from support.raw_http import exchange, parse, request
from tempo_api import wire
from tempo_api.openai import PLAIN_PATHS, Endpoint

BOUNDED = settings(
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PATHS = [endpoint.value.encode() for endpoint in Endpoint]
GOOD = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x"}]}).encode()

NAMES = [
    *wire.CLASS_HEADERS, *wire.TTFT_HEADERS, *wire.TBT_HEADERS, *wire.TENANT_HEADERS, *wire.SESSION_HEADERS,
    wire.DEADLINE_HEADER, wire.PROGRAM_HEADER, wire.STAGE_HEADER, wire.PROGRAM_DEADLINE_HEADER, wire.FINAL_HEADER,
    wire.INTAKE_HEADER, "authorization", "content-type", "content-encoding", "cookie", "accept-encoding", "te",
    "connection", "x-request-id", "traceparent", "x-odd",
]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from([b"chat", b"agent", b"1", b"0", b"-1", b"nan", b"1e400", b"true", b"Bearer", b"gzip", b"identity"]),
    st.integers().map(str).map(str.encode),
    st.binary(max_size=300).map(lambda value: bytes(byte for byte in value if byte >= 0x20 and byte != 0x7F)),
)
HEADERS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5)

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(["type", "text"]), inner),
    max_leaves=8,
)
READ = [
    "model", "stream", "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "user", "service_tier",
    "stream_options", "vllm_xargs", "messages", "prompt", "input", "instructions", "tools", "priority",
]  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=200),
    ANY.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(READ), ANY).map(lambda body: json.dumps(body).encode()),
)


def check(answer):
    """It is an answer, and if it is an error, one of the caller's that tells what is wrong."""
    status, body = parse(answer)
    assert 200 <= status < 500
    if status >= 400:
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"].endswith((".", "?"))
        assert error["param"] or error["code"] != "invalid_value" or "not valid HTTP" in error["message"]
    return status


@BOUNDED
@given(headers=HEADERS, path=st.sampled_from(PATHS))
@example(headers={"content-encoding": b"gzip"}, path=PATHS[0])
@example(headers={"x-request-id": b"\xff"}, path=PATHS[0])
@example(headers={"authorization": b"Bearer \xff\xfe"}, path=PATHS[0])
async def test_any_headers_are_served_or_refused_by_name(pair, headers, path):
    router, _ = pair
    lines = [name.encode() + b": " + value for name, value in headers.items()]
    check(await exchange(router.url, request(b"POST", path, *lines, body=GOOD)))


@BOUNDED
@given(body=BODIES, path=st.sampled_from([*PATHS, *(path.encode() for path in PLAIN_PATHS[:1])]))
@example(body=b'{"model": "\\ud800"}', path=PATHS[0])
@example(body=b'{"n": 1e308, "max_tokens": -1.0, "stream": true}', path=PATHS[0])
@example(body=b'{"max_tokens": -9223372036854775808}', path=PATHS[1])
async def test_any_body_is_served_or_refused_by_name(pair, body, path):
    router, _ = pair
    check(await exchange(router.url, request(b"POST", path, b"Content-Type: application/json", body=body)))


@BOUNDED
@given(
    method=st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"ODD"]),
    path=st.binary(max_size=60),
)
@example(method=b"GET", path=b"v1/models/%00%ff")
@example(method=b"POST", path=b"v1/%2e%2e/metrics")
async def test_any_path_is_served_or_refused(pair, method, path):
    router, _ = pair
    odd = bytes(byte for byte in path if byte > 0x20 and byte != 0x7F)
    status, _ = parse(await exchange(router.url, request(method, b"/" + odd)))
    assert 200 <= status < 500


WHOLE = request(b"POST", PATHS[0], body=GOOD)
CHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 1000,
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        WHOLE.replace(b"Content-Length: ", b"Content-Length: -"),
        WHOLE.replace(b"Content-Length: ", b"Content-Length: 9999"),
        WHOLE.replace(b"Content-Length: ", b"Content-Length: x"),
        WHOLE.replace(b"Content-Length: ", b"Content-Length: 3\r\nContent-Length: "),
        WHOLE.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nContent-Length: "),
        CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"ffffffffffffffffffff\r\n{}",
        CHUNKED + b"2\r\n{}garbage",
        request(b"GET", b"/v1/models", b"x-odd: " + b"a" * 100_000),
        request(b"GET", b"/v1/models", *(b"x-%d: y" % i for i in range(5000))),
        request(b"GET", b"/v1/models", b"x-odd: a\0b"),
        request(b"GET", b"/v1/models", b"x odd: a"),
        request(b"POST", PATHS[0], b"Expect: odd"),
        request(b"GET", b"/v1/" + b"a" * 100_000),
    ],
)
async def test_what_is_no_http_is_no_trouble(pair, data):
    router, _ = pair
    assert parse(await exchange(router.url, data, hang_up=True))[0] < 500
    assert check(await exchange(router.url, WHOLE)) == 200


@BOUNDED
@given(cuts=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(max_size=3)), min_size=1, max_size=4))
async def test_a_garbled_request_is_no_trouble(pair, cuts):
    router, _ = pair
    data = bytearray(WHOLE)
    for at, instead in cuts:
        data[at : at + 1] = instead
    assert parse(await exchange(router.url, bytes(data), hang_up=True))[0] < 500
    assert check(await exchange(router.url, WHOLE)) == 200
