"""What the router makes of the streams by which replicas push their state, and of their failures under load.

Whatever happens to one of several replicas, nobody hangs, no stream is cut off without a word, and only those see an
error whose answer had begun.
"""

import asyncio
import json
import time
from math import inf

import aiohttp
import pytest

from support.fake_engine import FakeEngine
from support.fake_replica import FakeReplica
from support.processes import until
from support.router_trial import QUICK, trial
from support.serving import QUICKSTART, serving
from tempo_api.reload import Reloader
from tempo_router.fleet import Fleet
from tempo_router.upstreams import Upstreams
from tempo_sidecar.lengths import WindowLengths
from tempo_sidecar.proxy import Sidecar

CLIENTS = 12
SOON_S = 15.0
"""Ample on a busy machine; on an idle one it takes a tenth."""


def four(**options):
    return [FakeReplica(**options) for _ in range(4)]


def check(answers):
    """Whole, or begun and then ended with an error event."""
    for answer in answers:
        assert answer.whole or answer.said_so, (answer.status, answer.replica, answer.body[-300:])


async def test_a_replica_that_is_killed_takes_only_streams_along_that_had_begun(tmp_path):
    async with trial(tmp_path, *four()) as t:
        async with t.load(CLIENTS):
            await t.answered(48)
            await t.replicas["r0"].kill()
            assert await t.until_out("r0") < SOON_S
            gone = len(t.answers)
            await t.answered(24, since=gone + CLIENTS)
            await t.replicas["r0"].restart()
            assert await t.until_in("r0") < SOON_S
            back = len(t.answers)
            await t.answered(100, since=back)
        check(t.answers)
        assert all(answer.whole for answer in t.answers[gone + CLIENTS :])
        assert t.by_replica(back)["r0"] > 5


async def test_requests_at_a_replica_that_hangs_are_served_by_another_or_told(tmp_path):
    async with trial(tmp_path, *four()) as t:
        async with t.load(CLIENTS):
            await t.answered(48)
            t.replicas["r0"].hang()
            assert await t.until_out("r0") < SOON_S
            gone = len(t.answers)
            await t.answered(24, since=gone + CLIENTS)
            t.replicas["r0"].go_on()
            assert await t.until_in("r0") < SOON_S
        check(t.answers)
        assert all(answer.whole for answer in t.answers[gone + CLIENTS :])


async def test_a_replica_that_refuses_is_left_alone_and_tried_again_later(tmp_path):
    async with trial(tmp_path, *four()) as t:
        async with t.load(CLIENTS):
            await t.answered(24)
            t.replicas["r0"].refuse_with = 503
            assert await t.until_out("r0") < SOON_S
            t.replicas["r0"].refuse_with = None
            assert await t.until_in("r0") < SOON_S
            back = len(t.answers)
            await t.answered(100, since=back)
        assert all(answer.whole for answer in t.answers)
        assert t.by_replica(back)["r0"] > 5


async def test_a_replica_whose_answers_are_errors_is_ejected_and_no_client_sees_one(tmp_path):
    async with trial(tmp_path, *four()) as t:
        async with t.load(CLIENTS):
            await t.answered(48)
            t.replicas["r0"].refuse_with = 500
            assert await t.until_out("r0") < SOON_S
            t.replicas["r0"].refuse_with = None
            back = len(t.answers)
            await until(lambda: t.by_replica(back)["r0"] > 5)
        assert all(answer.whole for answer in t.answers)


async def test_a_replica_that_takes_requests_and_answers_none_is_ejected_whatever_it_says_of_itself(tmp_path):
    async with trial(tmp_path, *four()) as t:
        async with t.load(CLIENTS):
            await t.answered(48)
            t.replicas["r0"].slow = inf
            await until(t.ejected)
            assert await t.ejected() == {"r0"}
            gone = len(t.answers)
            t.replicas["r0"].slow = 1.0
            await until(lambda: t.by_replica(gone)["r0"] > 5, within_s=60)  # each trial that failed doubled its time
        check(t.answers)


async def test_a_replica_whose_first_bytes_come_far_later_than_the_others_is_ejected(tmp_path):
    async with trial(tmp_path, *four()) as t:
        t.replicas["r0"].dawdle_s = 0.5
        async with t.load(CLIENTS):
            await until(t.ejected)
            assert await t.ejected() == {"r0"}
        assert all(answer.whole for answer in t.answers)


async def test_a_replica_ten_times_slower_than_the_others_is_given_less_and_loses_nothing(tmp_path):
    async with trial(tmp_path, *four(pace_s=0.01)) as t:
        t.replicas["r0"].slow = 10.0
        async with t.load(CLIENTS):
            await t.answered(80)
        assert all(answer.whole for answer in t.answers)
        served = t.by_replica()
        assert 2 * served["r0"] < min(served[name] for name in ("r1", "r2", "r3"))


async def test_a_replica_that_falls_silent_is_passed_over_and_never_cut_off(tmp_path):
    silent, talking = FakeReplica(), FakeReplica()
    async with trial(tmp_path, silent, talking) as t:
        silent.mute = True
        listened = silent.listened
        await until(lambda: silent.listened > listened + 1)  # it was given up on, and asked again
        served = silent.served
        async with t.load(4):
            await t.answered(40)
        assert (silent.served, await t.ready()) == (served, {"r0", "r1"})
        silent.mute = False
        async with t.load(8):
            await until(lambda: silent.served > served)
        assert all(answer.whole for answer in t.answers)


@pytest.mark.parametrize("garbage", [b"\xff\x00{{{\n", b"<html>\n", b'{"in_flight": -1}\n', b"x" * 20_000])
async def test_a_replica_that_pushes_garbage_is_probed_instead(tmp_path, garbage):
    confused = FakeReplica()
    async with trial(tmp_path, confused) as t:
        confused.garbage = garbage
        await until(lambda: confused.listened > 2)
        assert await t.ready() == {"r0"}
        assert (await t.ask()).whole
        confused.garbage = None
        listened = confused.listened
        await until(lambda: confused.listened > listened)
        assert (await t.ask()).whole


async def test_a_replica_that_comes_back_is_listened_to_again(tmp_path):
    replica = FakeReplica()
    async with trial(tmp_path, replica) as t:
        for times in range(2, 5):
            await replica.kill()
            await t.until_out("r0")
            await replica.restart()
            await t.until_in("r0")
            await until(lambda times=times: replica.listened >= times)
            assert (await t.ask()).whole


async def test_when_the_last_replica_is_gone_clients_are_told_that_there_is_none(tmp_path):
    replica = FakeReplica()
    async with trial(tmp_path, replica, max_queue_time="200ms") as t:
        await replica.kill()
        await t.until_out("r0")
        answers = await asyncio.gather(*(t.ask() for _ in range(8)))
        assert {answer.status for answer in answers} == {503}


async def test_a_router_understands_a_real_sidecar(tmp_path):
    status = {"state": "active", "running": 2, "waiting": 1, "places": 2, "cache_used": 0.5, "written_s": time.time()}
    path = tmp_path / "status.json"
    path.write_text(json.dumps(status))
    async with FakeEngine().running() as engine, aiohttp.ClientSession() as session:
        sidecar = Sidecar(engine.url, Reloader(QUICKSTART), WindowLengths(), plugin_status=path)
        async with serving(sidecar.app()) as url:
            fleet = Fleet({"r0": url}, limits=QUICK)
            watching = asyncio.create_task(Upstreams(fleet).watch(session))
            await until(lambda: fleet.candidates()[0].places == 2 and fleet.ready["r0"])
            facts = fleet.candidates()[0]
            assert (facts.waiting, facts.cache_used, facts.stale) == (1, 0.5, False)
            assert fleet.state_age_s["r0"] < QUICK.stale_s
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
