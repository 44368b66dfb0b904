"""Waiting for a replica: at once while there is room, in order when there is none, and never without bound."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace

import pytest

from tempo_api.openai import APIError, Ending
from tempo_api.state import EngineState
from tempo_core.graphs import Forecast
from tempo_core.programs import Call
from tempo_core.routing import Demand
from tempo_core.slo import GainRule, Objectives, Overload, Pattern, SLOClass
from tempo_core.snapshot import COLUMNS, Settings
from tempo_router.fleet import Fleet
from tempo_router.line import LONGEST_S, NO_REPLICA_S, Line, Turn
from tempo_router.member import Ticket

CHAT = SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=1.0, tbt_s=0.1))
TOOL = SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=8.0))
BATCH = SLOClass("batch", Pattern.BEST_EFFORT)
PLACES = 4
ROOM = PLACES + 1


class World:
    """A line before replicas of four places each, under a clock that only the test moves."""

    def __init__(self, replicas: int = 1, capacity: int = 100, *, ready: bool = True, ranks: bool = False) -> None:
        self.now_s = 100.0
        self.fleet = Fleet({f"r{i}": f"http://r{i}" for i in range(replicas)}, lambda: self.now_s)
        self.line = Line(self.fleet, lambda: self.now_s, capacity, Settings())
        self.number = 0
        for name in self.fleet.urls:
            self.fleet.pushed(name, EngineState(ready=ready, ranks=ranks, places=PLACES, tokens_per_s=100.0))

    def turn(self, slo: SLOClass = TOOL, tenant: str = "", tokens: float = 20.0) -> Turn:
        self.number += 1
        return Turn(f"t{self.number}", Demand(slo, 10, tokens, 0.0, slo.deadline_s()), self.now_s, tenant)

    async def full(self) -> list[Ticket]:
        return [await self.line.wait(self.turn()) for _ in range(ROOM)]

    async def waiting(self, *turns: Turn) -> list[asyncio.Task[Ticket]]:
        tasks = [asyncio.ensure_future(self.line.wait(turn)) for turn in turns]
        await settled()
        assert not any(task.done() for task in tasks)
        return tasks


async def settled() -> None:
    """Every task has gone as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def refusal(task: Awaitable[Ticket]) -> APIError:
    with pytest.raises(APIError) as caught:
        await task
    return caught.value


def test_who_waits_is_seen_with_what_is_left_of_its_program_unless_it_was_degraded():
    program = Call("p", 1, 90.0, 120.0, 7.0)
    forecast = Forecast(due_s=120.0, latest_s=150.0, prompt_tokens_left=300.0, output_tokens_left=400.0, tools=True)
    turn = Turn("t", Demand(TOOL, 10, 20.0, 10.0, 30.0), 100.0, call=program, forecast=forecast)

    def seen():
        row = dict(zip(COLUMNS, turn.job().row.tolist(), strict=False))
        return [row[name] for name in ("due", "latest", "later_prompt", "later_output", "tools", "banked")]

    assert seen() == [120.0, 150.0, 300.0, 400.0, 1.0, 7.0]
    turn.degraded = True
    assert seen() == [120.0, 120.0, 0.0, 0.0, 0.0, 7.0]


async def test_while_a_replica_has_room_nobody_waits():
    world = World()
    assert len(await world.full()) == ROOM
    assert not len(world.line.gate)


async def test_who_waits_goes_as_soon_as_a_place_falls_free():
    world = World()
    tickets = await world.full()
    (task,) = await world.waiting(world.turn())
    world.fleet.release(tickets[0])
    assert (await task).replica == "r0"


async def test_of_those_who_wait_whoever_loses_most_goes_first():
    world = World()
    tickets = await world.full()
    batch, chat = await world.waiting(world.turn(BATCH), world.turn(CHAT))
    world.fleet.release(tickets[0])
    await settled()
    assert chat.done()
    assert not batch.done()
    assert world.line.held == {"batch": 1, "chat": 0}
    batch.cancel()


async def test_nobody_passes_those_who_wait():
    world = World()
    tickets = await world.full()
    (first,) = await world.waiting(world.turn(replace(TOOL, gain=GainRule(weight=9.0))))
    (second,) = await world.waiting(world.turn())
    world.fleet.release(tickets[0])
    await settled()
    assert [first.done(), second.done()] == [True, False]
    second.cancel()


async def test_a_flood_gets_places_and_others_pass_it_into_the_engine_s_queue():
    world = World(ranks=True)
    modest = [world.turn(tenant="modest") for _ in range(2)]
    first = await world.line.wait(modest[0])
    for _ in range(ROOM - 1):
        await world.line.wait(world.turn(tenant="greedy"))
    held = await world.waiting(*(world.turn(tenant="greedy") for _ in range(3)))
    second = await world.line.wait(modest[1])
    for ticket, turn, went in ((first, modest[0], 0), (second, modest[1], 1)):
        world.fleet.release(ticket)
        world.line.ended(turn, 10, 20)
        await settled()
        assert sum(task.done() for task in held) == went
    for task in held:
        task.cancel()


async def test_who_gives_up_waiting_leaves_the_line():
    world = World()
    tickets = await world.full()
    (task,) = await world.waiting(world.turn())
    task.cancel()
    await settled()
    world.fleet.release(tickets[0])
    assert not len(world.line.gate)
    assert world.fleet.in_flight == {"r0": ROOM - 1}


async def test_a_place_that_comes_as_its_caller_gives_up_is_given_back():
    world = World()
    tickets = await world.full()
    (task,) = await world.waiting(world.turn())
    world.fleet.release(tickets[0])
    task.cancel()
    await settled()
    assert world.fleet.in_flight == {"r0": ROOM - 1}


async def test_one_too_many_and_the_least_deserving_is_shed_with_a_time_to_come_back():
    world = World(capacity=1)
    await world.full()
    (batch,) = await world.waiting(world.turn(BATCH))
    world.now_s += 1.0
    (chat,) = await world.waiting(world.turn(CHAT))
    error = await refusal(batch)
    assert error.ending is Ending.SHED
    assert error.retry_after_s >= 1.0
    chat.cancel()


async def test_one_too_many_is_shed_also_where_no_replica_is_ready():
    world = World(capacity=1, ready=False)
    (batch,) = await world.waiting(world.turn(BATCH))
    world.now_s += 1.0
    (chat,) = await world.waiting(world.turn(CHAT))
    assert (await refusal(batch)).ending is Ending.SHED
    chat.cancel()


async def test_a_place_that_falls_free_in_the_moment_that_somebody_gives_up_is_the_next_one_s():
    world = World()
    tickets = await world.full()
    chat, tool = await world.waiting(world.turn(CHAT), world.turn())
    chat.cancel()
    world.fleet.release(tickets[0])
    assert (await tool).replica == "r0"
    assert world.fleet.in_flight == {"r0": ROOM}


async def test_a_class_that_sheds_is_refused_after_its_time_in_the_queue():
    world = World()
    await world.full()
    slo = replace(TOOL, max_queue_time_s=0.01, overload=Overload.SHED)
    (task,) = await world.waiting(world.turn(slo))
    world.now_s += 0.02
    world.line.look_up()
    error = await refusal(task)
    assert error.ending is Ending.QUEUE_TIMEOUT
    assert "tool" in error.message


async def test_a_class_that_degrades_goes_on_without_a_promise():
    world = World()
    tickets = await world.full()
    turn = world.turn(replace(TOOL, max_queue_time_s=0.01, overload=Overload.DEGRADE))
    (task,) = await world.waiting(turn)
    world.now_s += 0.02
    world.line.look_up()
    assert turn.degraded
    (tool,) = await world.waiting(world.turn())
    for freed, expected in ((tickets[0], tool), (tickets[1], task)):
        world.now_s += 0.1
        world.fleet.release(freed)
        assert (await expected).replica == "r0"
    assert turn.demand.slo.pattern is Pattern.BEST_EFFORT


async def test_a_class_that_queues_waits_on_but_not_for_ever():
    world = World()
    await world.full()
    turn = world.turn(replace(TOOL, max_queue_time_s=0.01))
    (task,) = await world.waiting(turn)
    world.now_s += LONGEST_S / 2
    world.line.look_up()
    await settled()
    assert not task.done()
    world.now_s += LONGEST_S / 2
    world.line.look_up()
    assert (await refusal(task)).ending is Ending.QUEUE_TIMEOUT


async def test_where_no_replica_is_ready_it_waits_a_little_and_says_so():
    world = World(ready=False)
    (task,) = await world.waiting(world.turn())
    world.now_s += NO_REPLICA_S
    world.line.look_up()
    error = await refusal(task)
    assert error.ending is Ending.NO_REPLICA
    assert error.retry_after_s


async def test_a_deadline_that_passes_before_any_replica_is_ready_is_named():
    world = World(ready=False)
    slo = replace(TOOL, objectives=Objectives(ttlt_s=1.0))
    (task,) = await world.waiting(world.turn(slo))
    world.now_s += 1.1
    world.line.look_up()
    assert (await refusal(task)).ending is Ending.DEADLINE_PASSED


async def test_who_waits_goes_as_soon_as_a_replica_is_ready():
    world = World(ready=False)
    (task,) = await world.waiting(world.turn())
    world.fleet.pushed("r0", EngineState(ready=True, places=PLACES))
    assert (await task).replica == "r0"


async def test_after_a_failure_another_replica_is_tried_room_or_not():
    world = World(replicas=2)
    for _ in range(2):
        await world.full()
    turn = world.turn()
    assert world.line.again(turn, ["r0"]).replica == "r1"
    assert world.line.again(turn, ["r0", "r1"]) is None


async def test_an_engine_that_does_not_say_how_many_it_runs_is_never_full():
    world = World()
    world.fleet.pushed("r0", EngineState(ready=True))
    for _ in range(300):
        await world.line.wait(world.turn())
