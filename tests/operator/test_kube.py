"""The client against real HTTP."""

import asyncio

import kopf
import pytest
from aiohttp import web

from tempo_operator import kube as module
from tempo_operator.kinds import POOL, STATEFUL_SET
from tempo_operator.kube import Kube, NotLeadingError, RefusedError, UnreachableError


@pytest.fixture
async def answers():
    """What the server says next; and the port that it says it on."""
    said = []

    async def say(request):
        answer = said.pop(0)
        return await answer(request) if callable(answer) else answer

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", say)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield said, runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
async def kube(answers):
    tokens = iter("abc")

    def login():
        return kopf.ConnectionInfo(
            server=f"http://127.0.0.1:{answers[1]}", token=next(tokens), default_namespace="home"
        )

    async with Kube(login, lambda: True) as found:
        yield found


def status(code, **headers):
    return web.json_response({"kind": "Status", "reason": "Why", "message": "because"}, status=code, headers=headers)


async def test_what_is_not_there_is_none(kube, answers):
    answers[0].append(status(404))
    assert await kube.get(POOL, "ns", "p") is None
    assert kube.namespace == "home"


async def test_a_refusal_carries_the_servers_words_and_wishes(kube, answers):
    answers[0].append(status(429, **{"Retry-After": "7"}))
    with pytest.raises(RefusedError, match="429 Why: because") as caught:
        await kube.get(POOL, "ns", "p")
    assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("code", "text", "final"),
    [
        (422, "because", True),
        (403, "because", True),
        (409, "because", False),
        (429, "because", False),
        (500, "etcd is tired", False),
        (500, "failed to create typed patch object (a/b; v1, Kind=Pod): .x: field not declared in schema", True),
    ],
)
def test_a_refusal_is_final_where_asking_again_can_t_help(code, text, final):
    assert RefusedError(code, "", text).final == final


async def test_an_expired_token_is_replaced_once(kube, answers):
    seen = []

    async def whoever(request):
        seen.append(request.headers["Authorization"])
        return status(401) if len(seen) == 1 else web.json_response({"metadata": {}})

    answers[0].extend([whoever, whoever])
    await kube.get(POOL, "ns", "p")
    assert seen == ["Bearer a", "Bearer b"]
    answers[0].extend([status(401), status(401)])
    with pytest.raises(RefusedError, match="401"):
        await kube.get(POOL, "ns", "p")


async def test_silence_and_nonsense_are_told_from_refusals(kube, answers):
    async def gateway(_):
        return web.Response(status=502, text="<html>bad gateway</html>")

    answers[0].append(gateway)
    with pytest.raises(RefusedError, match="bad gateway"):
        await kube.get(POOL, "ns", "p")
    info = kopf.ConnectionInfo(server="http://127.0.0.1:1")
    async with Kube(lambda: info, lambda: True) as nobody:
        with pytest.raises(UnreachableError, match="GET /apis"):
            await nobody.get(POOL, "ns", "p")


async def test_a_silent_server_is_given_up_in_time(answers, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.1)

    async def silence(_):
        await asyncio.sleep(5)  # far beyond the time limit that is tested

    answers[0].append(silence)
    info = kopf.ConnectionInfo(server=f"http://127.0.0.1:{answers[1]}")
    async with Kube(lambda: info, lambda: True) as waiting:
        with pytest.raises(UnreachableError, match="TimeoutError"):
            await waiting.get(POOL, "ns", "p")


async def test_who_does_not_lead_writes_nothing(answers):
    info = kopf.ConnectionInfo(server=f"http://127.0.0.1:{answers[1]}")
    document = {"metadata": {"namespace": "ns", "name": "e", "uid": "u"}}
    async with Kube(lambda: info, lambda: False) as follower:
        for write in (follower.apply, follower.create, follower.delete):
            with pytest.raises(NotLeadingError):
                await write(STATEFUL_SET, document)
        assert follower.requests == 0
