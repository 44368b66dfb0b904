import json

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from tempo_sidecar.plugin import STALLED_S, UNKNOWN, PluginStatus, StallWatch, StatusFile, status_metrics

STATUS = {
    "state": "active",
    "reason": "",
    "policy": "tempo",
    "steps": 9,
    "passes": 3,
    "pass_seconds_mean": 0.001,
    "preemptions": 2,
    "malformed": 1,
    "running": 4,
    "waiting": 5,
    "step_time": {"base_s": 0.008},
    "reasons": {"urgent": 7},
    "written_s": 100.0,
    "added_later": True,
}


def write(path, status):
    path.write_text(status if isinstance(status, str) else json.dumps(status))
    return path


def exposition(status):
    class Once(Collector):
        def collect(self):
            return status_metrics(status)

    registry = CollectorRegistry()
    registry.register(Once())
    return generate_latest(registry).decode().splitlines()


def test_the_plug_ins_word_is_taken_for_ten_seconds(tmp_path):
    path = write(tmp_path / "status.json", STATUS)
    assert StatusFile(path).read(109.9).state == "active"
    assert StatusFile(path).read(110.1) is UNKNOWN


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "confused", "written_s": 100}', '{"steps": "x"}'])
def test_a_file_that_can_not_be_used_says_nothing(tmp_path, text):
    assert StatusFile(write(tmp_path / "status.json", text)).read(100.0) is UNKNOWN


def test_no_file_says_nothing(tmp_path):
    assert StatusFile(None).read(100.0) is UNKNOWN
    assert StatusFile(tmp_path / "absent").read(100.0) is UNKNOWN


def test_the_status_is_exported(tmp_path):
    lines = exposition(StatusFile(write(tmp_path / "status.json", STATUS)).read(100.0))
    for line in (
        "tempo_engine_scheduler_active 1.0",
        "tempo_engine_waiting 5.0",
        "tempo_engine_preemptions_total 2.0",
        "tempo_engine_facts_malformed_total 1.0",
        'tempo_engine_step_time{term="base_s"} 0.008',
        'tempo_engine_decisions_total{reason="urgent"} 7.0',
    ):
        assert line in lines


@pytest.mark.parametrize(("state", "value"), [("fallback", "0.0"), ("unknown", "-1.0")])
def test_an_engine_in_its_own_order_shows_in_one_gauge(tmp_path, state, value):
    status = StatusFile(write(tmp_path / "status.json", STATUS | {"state": state})).read(100.0)
    assert f"tempo_engine_scheduler_active {value}" in exposition(status)


def stalled_after(*seen):
    """Whether the last of these statuses, each with the time since the one before, is that of an engine that hangs."""
    watch, now_s, stalled = StallWatch(), 0.0, False
    for after_s, status in seen:
        now_s += after_s
        stalled = watch.stalled(status, now_s)
    return stalled


WORKS = PluginStatus(state="active", running=2, steps=9)
A_MINUTE = round(STALLED_S / 2)


def test_an_engine_that_runs_requests_and_makes_no_step_for_a_minute_hangs():
    assert stalled_after((0, WORKS), *((2, WORKS),) * A_MINUTE)
    assert not stalled_after((0, WORKS), *((2, WORKS),) * (A_MINUTE - 1))


@pytest.mark.parametrize(
    "change",
    [{"steps": 10}, {"running": 0}, {"state": "fallback"}, {"state": "unknown"}],
    ids=lambda change: next(iter(change)),
)
def test_one_that_makes_steps_or_has_nothing_to_do_or_does_not_say_does_not_hang(change):
    other = msgspec.structs.replace(WORKS, **change)
    assert not stalled_after((0, WORKS), *((2, WORKS),) * A_MINUTE, (2, other))
    assert not stalled_after((0, other), *((2, WORKS), (2, other)) * A_MINUTE)


def test_time_in_which_nobody_looked_does_not_count():
    assert not stalled_after((0, msgspec.structs.replace(WORKS, running=0)), (10 * STALLED_S, WORKS))
    assert not stalled_after((0, WORKS), (10 * STALLED_S, WORKS))
