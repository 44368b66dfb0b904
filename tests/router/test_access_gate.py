"""Keys, ceilings and heads that are too large, over HTTP."""

import asyncio
import json

import pytest

from support.access import guarded, write_keys
from support.fake_engine import MODEL, FakeEngine
from support.processes import until
from support.serving import eventually
from tempo_router.access import Gate

TEAM_A = {"name": "team-a", "key": "sk-aaaaaaaa", "classes": ["batch"], "maxConcurrentRequests": 1}
TEAM_B = {"name": "team-b", "key": "sk-bbbbbbbb"}
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there, engine."}]}


@pytest.fixture
def keys(tmp_path):
    return write_keys(tmp_path / "keys.yaml", TEAM_A, TEAM_B)


async def test_who_has_a_key_gets_in_and_who_has_none_is_told_how(keys, tmp_path):
    async with guarded(FakeEngine(), tmp_path, Gate(keys)) as router:
        assert (await router.ask(key="sk-bbbbbbbb", data=b"x"))[::2] == (200, b"x")
        for key in (None, "sk-wrong"):
            status, headers, body = await router.ask(key=key, data=b"x")
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
            assert (body["error"]["type"], body["error"]["code"]) == ("invalid_request_error", "invalid_api_key")


async def test_a_path_that_is_not_there_tells_nobody_without_a_key_so(keys, tmp_path):
    async with guarded(FakeEngine(), tmp_path, Gate(keys)) as router:
        assert (await router.ask("/nowhere"))[0] == 401
        assert (await router.ask("/nowhere", key="sk-bbbbbbbb"))[0] == 404
        assert (await router.ask("/v1/models", "GET"))[0] == 401
        assert (await router.ask("/v1/models", "GET", key="sk-bbbbbbbb"))[0] == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probes_need_no_key(keys, tmp_path, path):
    async with guarded(FakeEngine(), tmp_path, Gate(keys)) as router:
        assert (await router.ask(path, "GET"))[0] == 200


async def test_without_a_file_of_keys_anybody_may_ask(tmp_path):
    async with guarded(FakeEngine(), tmp_path) as router:
        assert (await router.ask(data=b"x"))[0] == 200


async def test_a_tenant_at_its_ceiling_is_told_when_to_come_back_and_others_go_on(keys, tmp_path):
    engine = FakeEngine(hold=asyncio.Event())
    async with guarded(engine, tmp_path, Gate(keys)) as router:
        path, stream = "/v1/chat/completions", ASK | {"stream": True}
        running = asyncio.ensure_future(router.ask(path, key="sk-aaaaaaaa", json=stream))
        await eventually(lambda: engine.bodies)
        status, headers, body = await router.ask(path, key="sk-aaaaaaaa", json=stream)
        assert (status, headers["Retry-After"]) == (429, "1")
        assert headers["x-tempo-dropped-reason"] == "rejected-saturated"
        assert "1 requests in flight; the key's ceiling is 1" in body["error"]["message"]
        assert (await router.ask(key="sk-bbbbbbbb", data=b"x"))[0] == 200
        engine.hold.set()
        assert (await running)[0] == 200
        assert (await router.ask(path, key="sk-aaaaaaaa", json=stream))[0] == 200


async def test_a_client_that_hangs_up_gives_its_place_back(keys, tmp_path):
    engine = FakeEngine(hold=asyncio.Event())
    async with guarded(engine, tmp_path, Gate(keys)) as router:
        path, stream = "/v1/chat/completions", ASK | {"stream": True}
        running = asyncio.ensure_future(router.ask(path, key="sk-aaaaaaaa", json=stream))
        await eventually(lambda: engine.bodies)
        running.cancel()

        async def free():
            return (await router.ask(key="sk-aaaaaaaa", data=b"x"))[0] == 200

        await until(free)


async def test_a_key_that_is_withdrawn_is_refused_without_a_restart(keys, tmp_path):
    async with guarded(FakeEngine(), tmp_path, Gate(keys)) as router:
        assert (await router.ask(key="sk-aaaaaaaa"))[0] == 200
        write_keys(keys, TEAM_B)

        async def refused():
            return (await router.ask(key="sk-aaaaaaaa"))[0] == 401

        await until(refused)
        assert (await router.ask(key="sk-bbbbbbbb"))[0] == 200


async def exchange(port, raw):
    """Send these bytes and read until the server closes: status, and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize(
    ("line", "fields", "code", "problem"),
    [
        (
            b"GET /v1/models HTTP/1.1",
            [b"Authorization: Bearer sk-" + b"x" * 9000],
            431,
            "A header is larger than 8192 bytes",
        ),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1", [], 431, "or the URL than 8192"),
        (b"GET / HTTP/1.1", [b"x-%d: y" % n for n in range(101)], 431, "There are more than 100 headers."),
        (b"GET / HTTP/1.1", [b"no colon sk-xxx"], 400, "The request is not valid HTTP."),
        (b"\x16\x03\x01", [], 400, "The request is not valid HTTP."),
    ],
    ids=["a long header", "a long URL", "many headers", "no header", "TLS"],
)
async def test_a_head_that_can_t_be_read_is_refused_in_openais_shape_and_never_repeated(
    tmp_path, caplog, line, fields, code, problem
):
    async with guarded(FakeEngine(), tmp_path) as router:
        raw = b"\r\n".join([line, b"Host: a", *fields, b"", b""])
        status, error = await exchange(router.port, raw)
        assert (status, error["type"]) == (code, "invalid_request_error")
        assert problem in error["message"]
        assert "xxx" not in str(error) + caplog.text
