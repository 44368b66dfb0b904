"""Replicas that come and go while the router runs, and limits that change."""

import asyncio
import logging

import pytest
import yaml

from support.fake_engine import MODEL, FakeEngine
from support.processes import until
from support.serving import eventually
from tempo_api.http.server import LIFECYCLE
from tempo_router.replicas import ReplicasError, ReplicasFile, read_replicas

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there, engine."}]}


@pytest.mark.parametrize("replicas", [{}, {"r0": "http://127.0.0.1:9"}, {"r0": "http://a", "r1": "http://b.c:8001"}])
def test_a_file_says_where_the_replicas_are(tmp_path, replicas):
    path = tmp_path / "replicas.yaml"
    path.write_text(yaml.safe_dump(replicas))
    assert read_replicas(path) == replicas


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "write a line for each replica, such as r0: http://127.0.0.1:9000, or {} for none"),
        ("- http://a", "write a line for each replica"),
        ("a: [", "not YAML"),
        ("r0: a:80", "r0: 'a:80' is no replica; write a name and a URL"),
        ("r0: http://a:x", "is no replica"),
        ("r0: 5", "is no replica"),
        ("7: http://a", "is no replica"),
        (
            "r0: https://a:1",
            "r0: 'https://a:1' asks for TLS, which the router does not speak to sidecars; write http://",
        ),
    ],
)
def test_a_file_that_can_t_be_used_is_one_line(tmp_path, text, problem):
    path = tmp_path / "replicas.yaml"
    path.write_text(text)
    with pytest.raises(ReplicasError) as caught:
        ReplicasFile(path)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ReplicasError, match="can't be read"):
        ReplicasFile(tmp_path / "absent.yaml")


def test_a_bad_change_is_logged_once_and_the_last_good_replicas_go_on(tmp_path, caplog):
    path = tmp_path / "replicas.yaml"
    path.write_text("{r0: http://a}")
    file = ReplicasFile(path)
    path.write_text("{r0: nowhere}")
    with caplog.at_level(logging.ERROR):
        assert (file.poll(), file.poll()) == (None, None)
    assert len(caplog.records) == 1
    assert file.replicas == {"r0": "http://a"}
    path.write_text("{}")
    assert file.poll() == {}


async def test_a_replica_that_is_added_takes_requests_and_one_that_is_removed_ends_its_own(start, tmp_path):
    file, old, new = tmp_path / "replicas.yaml", FakeEngine(hold=asyncio.Event()), FakeEngine()
    router = await start(old, file=file)
    async with new.running():
        running = asyncio.ensure_future(router.post(ASK | {"stream": True}))
        await eventually(lambda: old.bodies)
        file.write_text(yaml.safe_dump({"r1": new.url}))

        async def known():
            return await router.replicas() == {"r1": True}

        await until(known)
        status, headers, _ = await router.post(ASK)
        assert (status, headers["x-tempo-replica"]) == (200, "r1")
        old.hold.set()
        status, headers, body = await running
        assert (status, headers["x-tempo-replica"]) == (200, "r0")
        assert body.endswith(b"data: [DONE]\n\n")


async def test_a_pool_scaled_to_zero_answers_503_and_says_when_to_come_back(start, tmp_path):
    router = await start(file=tmp_path / "replicas.yaml")
    status, headers, _ = await router.post(ASK)
    assert (status, headers["Retry-After"]) == (503, "1")


async def test_changed_limits_take_effect_without_a_restart(start):
    router = await start(FakeEngine())
    assert (await router.post(ASK))[0] == 200
    text = router.manifest.read_text()
    router.manifest.write_text(text.replace("maxBodyBytes: 100000", "maxBodyBytes: 10"))

    async def refused():
        return (await router.post(ASK))[0] == 413

    await until(refused)
    router.manifest.write_text(text.replace("maxConcurrentRequests: 400", "maxConcurrentRequests: 1"))
    await eventually(lambda: router.app[LIFECYCLE].max_in_flight == 1)
