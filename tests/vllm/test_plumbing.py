"""The breaker, the ranked queue, the pool's file and the status file."""

import json
import os
import threading
from collections import deque

import pytest

from support.fake_request import FakeRequest
from support.pools import write_pool
from tempo_vllm.breaker import Breaker
from tempo_vllm.pools import STAND_IN, PoolFile
from tempo_vllm.ranked_queue import RankedQueue
from tempo_vllm.status import Housekeeper, status_file, write_status


def failing_step(breaker, error=None):
    breaker.next_step()
    with breaker:
        if error is not None:
            raise error


def test_failures_are_swallowed_counted_and_logged_once(heard):
    breaker = Breaker()
    for _ in range(2):
        failing_step(breaker, ValueError("no"))
    assert (breaker.failures, breaker.is_open) == (2, False)
    assert [bool(record.exc_info) for record in heard.records] == [True]


def test_three_steps_with_failures_in_a_row_open_the_breaker_for_good():
    breaker = Breaker()
    for _ in range(3):
        failing_step(breaker, ValueError("no"))
    breaker.next_step()
    assert breaker.reason == "failed in 3 steps in a row, last with ValueError: no"
    for _ in range(5):
        failing_step(breaker)
    assert breaker.is_open


def test_a_good_step_between_makes_the_count_begin_anew():
    breaker = Breaker()
    for index in range(12):
        failing_step(breaker, ValueError("no") if index % 3 else None)
    assert not breaker.is_open


def test_what_must_end_the_process_passes_the_breaker():
    with pytest.raises(KeyboardInterrupt), Breaker():
        raise KeyboardInterrupt


class FakeQueue(RankedQueue, deque):
    """A deque in the place of vLLM's queue."""


def names(queue):
    return "".join(request.request_id for request in queue)


@pytest.fixture
def queue():
    made = FakeQueue(FakeRequest(name) for name in "abcd")
    made.rank("dbca")
    return made


def test_the_queue_is_in_the_plans_order_and_newcomers_stay_behind(queue):
    queue.append(FakeRequest("x"))
    queue.append(FakeRequest("w"))
    assert names(queue) == "dbcaxw"
    queue.rank("wab")
    assert names(queue) == "wabdcx"


def test_who_lost_a_place_comes_in_at_its_rank(queue):
    victim = queue.popleft()
    queue.popleft()
    queue.prepend_request(victim)
    assert names(queue) == "dca"
    lowest = queue.pop()
    queue.prepend_request(lowest)
    assert names(queue) == "dca"


def test_who_lost_a_place_and_is_in_no_plan_comes_before_the_other_newcomers(queue):
    queue.append(FakeRequest("x"))
    queue.prepend_request(FakeRequest("v"))
    assert names(queue) == "dbcavx"


def test_without_a_file_the_pool_is_one_best_effort_class():
    assert PoolFile(None).pool is STAND_IN


def test_a_changed_file_is_taken_over_and_a_broken_or_missing_one_changes_nothing(tmp_path, heard):
    path = write_pool(tmp_path)
    pools = PoolFile(path)
    first = pools.pool
    assert set(first.classes) == {"chat", "tool", "agent", "batch"}
    pools.refresh()
    assert pools.pool is first

    path.write_text(path.read_text().replace("ttft: 2s", "ttft: 4s"))
    os.utime(path, ns=(1, 1))
    pools.refresh()
    second = pools.pool
    assert second.default.objectives.ttft_s == 4.0

    for number, ruin in enumerate((lambda: path.write_text("kind: Nonsense"), path.unlink)):
        ruin()
        for _ in range(3):
            pools.refresh()
        assert pools.pool is second
        assert len(heard.records) == number + 1, "each problem is logged once"


def test_an_engine_whose_file_is_missing_from_the_start_serves_the_stand_in_until_it_comes(tmp_path):
    pools = PoolFile(tmp_path / "pool.yaml")
    assert pools.pool is STAND_IN
    write_pool(tmp_path)
    pools.refresh()
    assert pools.pool.name == "test"


def test_the_status_is_replaced_whole(tmp_path):
    path = tmp_path / "status.json"
    for steps in range(3):
        write_status(path, {"steps": steps})
    assert json.loads(path.read_text())["steps"] == 2
    assert [item.name for item in tmp_path.iterdir()] == ["status.json"]


def test_an_empty_environment_variable_means_no_status(monkeypatch):
    monkeypatch.setenv("TEMPO_STATUS_FILE", "")
    assert status_file() is None


def test_the_housekeeper_goes_on_after_failures_and_complains_once(tmp_path, monkeypatch, heard):
    monkeypatch.setenv("TEMPO_STATUS_FILE", str(tmp_path / "status.json"))
    monkeypatch.setattr("tempo_vllm.status.LOOK_EVERY_S", 0.001)
    monkeypatch.setattr("tempo_vllm.status.CHORE_EVERY_S", 0.001)
    calls, enough = [], threading.Event()

    def chore():
        calls.append(1)
        if len(calls) < 4:
            raise OSError("disk full")
        if len(calls) > 5:
            enough.set()

    keeper = Housekeeper(lambda: {"state": "active"}, chore)
    assert enough.wait(10.0)
    keeper.stop()
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "active"
    assert len(heard.records) == 1
