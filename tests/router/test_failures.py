"""What clients see when replicas fail, are missing, or are too few."""

import asyncio
import json

import openai
import pytest

from support.fake_engine import MODEL, FakeEngine
from support.processes import until
from support.serving import eventually
from tempo_api.http.server import LIFECYCLE, drain

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there, engine."}]}
NOBODY = "http://127.0.0.1:9"
"""The discard port, where nothing listens."""


def code(raw):
    return json.loads(raw)["error"]["code"]


@pytest.mark.parametrize(
    "broken", [*(FakeEngine(refuse_with=status) for status in (500, 502, 503)), FakeEngine(die_after=0)]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_failed_before_its_first_byte_is_served_by_another_replica(start, broken, stream):
    good = FakeEngine()
    router = await start(broken, good)
    status, headers, _ = await router.post(ASK | {"stream": stream})
    assert (status, headers["x-tempo-replica"], len(good.bodies)) == (200, "r1", 1)
    assert await router.metric("tempo_router_retries_total") == 1
    assert await router.metric("tempo_router_requests_total", slo_class="chat", outcome="completed") == 1


@pytest.mark.parametrize(
    ("broken", "status", "error"),
    [({"refuse_with": 503}, 503, "service_unavailable"), ({"die_after": 0}, 502, "upstream_failed")],
)
async def test_each_replica_is_tried_once_and_then_the_client_is_told(start, broken, status, error):
    engines = [FakeEngine(**broken), FakeEngine(**broken)]
    router = await start(*engines)
    got, _, raw = await router.post(ASK)
    assert (got, code(raw), [len(engine.bodies) for engine in engines]) == (status, error, [1, 1])
    assert await router.metric("tempo_router_in_flight") == 0


async def test_an_engines_own_error_is_tried_once_more_and_then_the_engine_has_the_word(start):
    engines = [FakeEngine(refuse_with=500) for _ in range(3)]
    router = await start(*engines)
    status, _, raw = await router.post(ASK)
    assert (status, json.loads(raw)["error"]["type"]) == (500, "Fake")
    assert sum(len(engine.bodies) for engine in engines) == 2


async def test_a_lone_engines_error_is_passed_on_as_it_is(start):
    router = await start(FakeEngine(refuse_with=500))
    status, _, raw = await router.post(ASK)
    assert (status, json.loads(raw)["error"]["type"]) == (500, "Fake")
    assert await router.metric("tempo_router_retries_total") == 0


async def test_a_request_that_kills_every_engine_gets_to_three_at_most(start):
    engines = [FakeEngine(die_after=0) for _ in range(5)]
    router = await start(*engines)
    assert (await router.post(ASK))[0] == 502
    assert sum(len(engine.bodies) for engine in engines) == 3


async def test_another_error_of_the_engines_is_not_tried_again(start):
    engines = [FakeEngine(refuse_with=501), FakeEngine(refuse_with=501)]
    router = await start(*engines)
    assert (await router.post(ASK))[0] == 501
    assert sum(len(engine.bodies) for engine in engines) == 1


async def test_what_passes_as_it_is_tells_of_a_replica_too(start):
    bad, good = FakeEngine(refuse_with=500), FakeEngine()
    router = await start(bad, good)

    async def ejected():
        assert (await router.post(b"{}", "/tokenize"))[0] == 200
        return await router.metric("tempo_router_replica_ejected", replica="r0")

    await until(ejected)
    bad.refuse_with = None
    seen = len(bad.headers)

    async def back():
        assert (await router.post(b"{}", "/tokenize"))[0] == 200
        return len(bad.headers) > seen

    await until(back)
    assert await router.metric("tempo_router_replica_ejected", replica="r0") == 0


async def test_answers_that_break_off_eject_a_replica(start):
    router = await start(FakeEngine(die_after=1), FakeEngine())

    async def ejected():
        await asyncio.gather(*(router.post(ASK | {"stream": True}) for _ in range(8)))
        return await router.metric("tempo_router_replica_ejected", replica="r0")

    await until(ejected)


async def test_a_replica_that_dies_mid_stream_ends_the_stream_with_an_error_for_the_client(start):
    router = await start(FakeEngine(die_after=2), FakeEngine())
    stream = await router.client.chat.completions.create(**ASK, stream=True)
    assert [(await anext(stream)).choices[0].delta.content for _ in range(2)] == [" w0", " w1"]
    with pytest.raises(openai.APIError):
        await anext(stream)
    assert await router.metric("tempo_router_requests_total", slo_class="chat", outcome="upstream_failed") == 1
    assert await router.metric("tempo_router_attained_total", slo_class="chat") == 0


async def test_a_replica_whose_engine_is_away_gets_nothing_until_it_is_back(start):
    away, here = FakeEngine(healthy=False), FakeEngine()
    router = await start(away, here)
    for _ in range(4):
        await router.post(ASK)
    assert (len(away.bodies), len(here.bodies)) == (0, 4)
    away.healthy, here.healthy = True, False

    async def swapped():
        return await router.replicas() == {"r0": True, "r1": False}

    await until(swapped, within_s=5)
    await router.post(ASK)
    assert len(away.bodies) == 1


async def test_load_is_spread_over_replicas(start):
    engines = [FakeEngine(hold=asyncio.Event()), FakeEngine(hold=asyncio.Event())]
    router = await start(*engines)
    requests = [asyncio.ensure_future(router.post(ASK | {"stream": True})) for _ in range(8)]
    await eventually(lambda: sum(len(engine.bodies) for engine in engines) == 8)
    assert [len(engine.bodies) for engine in engines] == [4, 4]
    for engine in engines:
        engine.hold.set()
    await asyncio.gather(*requests)


async def test_without_a_replica_a_request_waits_as_long_as_its_class_allows(start):
    router = await start(NOBODY)
    status, headers, raw = await router.post(ASK)
    assert (status, code(raw)) == (503, "service_unavailable")
    assert headers["Retry-After"] == "1"
    assert headers["x-tempo-dropped-reason"] == "rejected-no-endpoints"


async def test_a_held_request_is_served_once_a_replica_is_ready(start):
    engine = FakeEngine(healthy=False)
    router = await start(engine)
    held = asyncio.ensure_future(router.post(ASK, **{"x-tempo-slo-class": "agent"}))
    await eventually(lambda: router.app[LIFECYCLE].in_flight == 1)
    engine.healthy = True
    status, headers, _ = await held
    assert status == 200
    assert int(headers["x-tempo-queue-ms"]) > 0


async def test_a_request_whose_deadline_passes_while_it_is_held_is_given_up(start):
    router = await start(NOBODY)
    status, headers, raw = await router.post(ASK, **{"x-tempo-slo-class": "tool"})
    assert (status, code(raw)) == (504, "deadline_passed")
    assert headers["x-tempo-dropped-reason"] == "rejected-ttl-expired"
    assert await router.metric("tempo_router_requests_total", slo_class="tool", outcome="deadline_passed") == 1


async def test_a_held_client_that_hangs_up_leaves_nothing_behind(start):
    router = await start(NOBODY)
    held = asyncio.ensure_future(router.post(ASK, **{"x-tempo-slo-class": "agent"}))
    await eventually(lambda: router.app[LIFECYCLE].in_flight == 1)
    held.cancel()
    await eventually(lambda: router.app[LIFECYCLE].in_flight == 0)
    assert await router.metric("tempo_router_requests_total", slo_class="agent", outcome="client_closed") == 1


async def test_three_hundred_streams_at_once_all_finish(start):
    engines = [FakeEngine(tokens=10, pace_s=0.005), FakeEngine(tokens=10, pace_s=0.005)]
    router = await start(*engines)
    answers = await asyncio.gather(*(router.post(ASK | {"stream": True}) for _ in range(300)))
    assert all(status == 200 and raw.endswith(b"data: [DONE]\n\n") for status, _, raw in answers)
    assert min(len(engine.bodies) for engine in engines) > 100
    assert await router.metric("tempo_router_in_flight") == 0


async def test_one_request_more_than_the_pool_takes_is_shed(start):
    engine = FakeEngine(hold=asyncio.Event())
    router = await start(engine, max_concurrent=1)
    first = asyncio.ensure_future(router.post(ASK))
    await eventually(lambda: engine.bodies)
    status, headers, raw = await router.post(ASK)
    assert (status, code(raw)) == (429, "rate_limit_exceeded")
    assert (headers["Retry-After"], headers["x-tempo-dropped-reason"]) == ("1", "rejected-saturated")
    engine.hold.set()
    assert (await first)[0] == 200


async def test_a_draining_router_finishes_what_it_has_and_takes_nothing_new(start):
    engine = FakeEngine(hold=asyncio.Event())
    router = await start(engine)
    running = asyncio.ensure_future(router.post(ASK | {"stream": True}))
    await eventually(lambda: engine.bodies)
    draining = asyncio.ensure_future(drain(router.app[LIFECYCLE], 10.0, asyncio.Queue()))
    await eventually(lambda: router.app[LIFECYCLE].draining)
    assert (await router.post(ASK))[0] == 503
    async with router.session.get(f"{router.url}/readyz") as answer:
        assert answer.status == 503
    engine.hold.set()
    assert (await running)[2].endswith(b"data: [DONE]\n\n")
    await asyncio.wait_for(draining, 5)
