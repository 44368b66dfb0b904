import asyncio

import pytest

from support.processes import until
from tempo_operator.kube import RefusedError
from tempo_operator.workqueue import WorkQueue, backoff_s


@pytest.fixture
async def run():
    tasks = []

    def start(queue, workers=2):
        tasks.append(asyncio.create_task(queue.run(workers)))

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_burst_makes_one_look(run):
    looks = []

    async def look(key):
        looks.append(key)

    queue = WorkQueue(look)
    run(queue)
    for _ in range(5):
        queue.add("a")
    queue.add("b")
    await until(lambda: len(looks) == 2)
    await asyncio.sleep(0.05)  # time for a third look, which must not come
    assert sorted(looks) == ["a", "b"]


async def test_what_changes_during_a_look_makes_another_and_never_two_at_once(run):
    going, looks, inside = asyncio.Event(), [], []

    async def look(key):
        inside.append(key)
        assert len(inside) == 1
        looks.append(key)
        await going.wait()
        inside.pop()

    queue = WorkQueue(look)
    run(queue, workers=4)
    queue.add("a")
    await until(lambda: looks)
    queue.add("a")
    queue.add("a")
    going.set()
    await until(lambda: len(looks) == 2)


async def test_a_failure_is_tried_again_when_the_server_allows_it(run):
    looks, loop = [], asyncio.get_running_loop()

    async def look(_):
        looks.append(loop.time())
        if len(looks) == 1:
            raise RefusedError(429, "TooManyRequests", "slow down", retry_after_s=0.7)

    queue = WorkQueue(look)
    run(queue)
    queue.add("a")
    await until(lambda: looks)
    await asyncio.sleep(0.05)  # well within the 0.7 s that the server asked for
    queue.add("a")  # an event meanwhile must not hurry it
    await until(lambda: len(looks) == 2)
    assert looks[1] - looks[0] >= 0.69


async def test_an_unexpected_error_of_one_key_does_not_stop_the_others(run):
    looks = []

    async def look(key):
        looks.append(key)
        if key == "bad":
            raise ZeroDivisionError

    queue = WorkQueue(look)
    run(queue, workers=1)
    queue.add("bad")
    await until(lambda: looks)
    queue.add("good")
    await until(lambda: "good" in looks)


def test_backoff_grows_to_a_minute_and_heeds_the_server():
    waits = [backoff_s(failures, None, 0.5) for failures in range(1, 20)]
    assert waits == sorted(waits)
    assert waits[0] == 0.5
    assert waits[-1] == 60.0
    assert backoff_s(1, 30.0, 0.5) == 30.0
