"""Forecasts on the request path, and the history behind it."""

import asyncio
import logging
from math import inf, nan

import pytest

from support.history import AGENT, FAST, begin, record, run_program
from support.serving import eventually
from tempo_api.wire import Intake
from tempo_core.gain import Outcome
from tempo_core.graphs import Graph, PatternGraphs, Record
from tempo_core.slo import Objectives, Pattern, SLOClass
from tempo_sidecar.history import HistoryError, HistoryKeeper, Pacing, history_metrics, open_store
from tempo_sidecar.history.store import Loaded


class FakeStore:
    """Keeps records in memory; fails, or hangs, when told to."""

    def __init__(self, *records, unreadable=0):
        self.kept = {(r.slo_class, r.graph): r for r in records}
        self.unreadable = unreadable
        self.failing = False
        self.loads = self.saves = 0
        self.closed = False

    async def load(self):
        self.loads += 1
        self._check()
        return Loaded(list(self.kept.values()), self.unreadable)

    async def save(self, records):
        self.saves += 1
        self._check()
        self.kept |= {(r.slo_class, r.graph): r for r in records}

    async def close(self):
        self.closed = True

    def _check(self):
        if self.failing:
            raise HistoryError("told to fail")


def keeper_of(store=None, pacing=FAST, **options):
    return HistoryKeeper(PatternGraphs(**options), store, pacing=pacing)


def test_a_call_of_a_known_pattern_gets_the_sub_deadline_of_its_stage():
    keeper = keeper_of()
    run_program(keeper, "a", [100, 300])
    intake, _ = begin(keeper, "b", 0)
    assert intake.deadline_s == pytest.approx(25.0, rel=0.05)
    assert (keeper.counts.unmatched, keeper.counts.matched) == (2, 1)


def test_a_call_of_a_known_pattern_says_what_its_later_stages_will_take():
    keeper = keeper_of()
    run_program(keeper, "a", [100, 300])
    first, _ = begin(keeper, "b", 0)
    assert 25.0 < first.latest_s < 100.0  # of 100 s for the program, less what the second call takes
    assert first.later_prompt_tokens == pytest.approx(100.0, rel=0.1)
    assert first.later_output_tokens == pytest.approx(300.0, rel=0.1)
    assert not first.tools


def test_a_program_that_runs_tools_says_so_whether_or_not_one_like_it_is_known():
    keeper = keeper_of()
    for known in (False, True):
        said = []
        for stage, now_s in enumerate((0.0, 10.0)):
            intake, call = begin(keeper, f"known-{known}", stage, now_s, final=stage == 1)
            keeper.end(call, Outcome("agent", 100, 100, nan, nan, 1.0, 0.0, attained=True), now_s + 1.0)
            said.append(intake.tools)
        assert said == [known, True]


def test_without_a_match_the_intake_stays_as_it_was():
    intake, call = begin(keeper_of(), "a", 0)
    assert intake.deadline_s == 100.0
    assert (call.program, call.stage, call.deadline_s) == ("a", 0, 100.0)


def test_an_intake_counts_from_the_request_s_arrival_at_the_router():
    keeper = keeper_of()
    run_program(keeper, "a", [100, 300])
    intake = Intake(
        slo_class="agent", elapsed_s=3.0, program="b", stage=1, deadline_s=60.0, program_elapsed_s=40.0, banked_gain=9.0
    )
    forecast, call = keeper.begin(intake, AGENT, 100, 1000.0)
    assert (call.program_arrival_s, call.deadline_s, call.banked_gain) == (957.0, 1057.0, 9.0)
    assert forecast.deadline_s == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("slo", "program"),
    [(SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=1.0, tbt_s=0.1)), "p"), (AGENT, None)],
)
def test_what_is_no_part_of_a_program_is_left_alone(slo, program):
    intake = Intake(slo_class=slo.name, program=program)
    assert keeper_of().begin(intake, slo, 100, 0.0) == (intake, None)


def test_a_class_without_a_deadline_keeps_none():
    keeper, slo = keeper_of(), SLOClass("agent", Pattern.COLLECTIVE, Objectives())
    for program in ("a", "b"):
        intake, call = keeper.begin(Intake(slo_class="agent", program=program, final=True), slo, 100, 0.0)
        keeper.end(call, Outcome("agent", 100, 50, nan, nan, 1.0, 0.0, attained=True), 1.0)
    assert call.deadline_s == inf
    assert intake.deadline_s is None
    assert keeper.counts.matched == 1


def test_without_a_store_nothing_waits_to_be_written():
    keeper = keeper_of()
    run_program(keeper, "a", [100])
    assert (keeper.pending, keeper.graphs.graphs) == (0, 1)


async def test_without_a_store_running_does_nothing():
    async with keeper_of().running():
        pass


async def test_stored_graphs_are_restored_and_what_is_no_graph_is_counted():
    store = FakeStore(record(1), record(2), Record("agent", b"garbage", 1.0), unreadable=2)
    keeper = keeper_of(store)
    async with keeper.running():
        await eventually(lambda: keeper.graphs.graphs == 2)
        await eventually(lambda: keeper.counts.unreadable == 3)
    assert store.closed


async def test_a_finished_program_is_written_behind_the_request():
    store = FakeStore()
    keeper = keeper_of(store)
    async with keeper.running():
        run_program(keeper, "a", [100, 300])
        assert (keeper.pending, store.saves) == (1, 0)
        await eventually(lambda: keeper.counts.written == 1)
    assert keeper.pending == 0
    (kept,) = store.kept.values()
    assert Graph.unpack(kept.graph).count == 2


async def test_idle_programs_are_written_too():
    store = FakeStore()
    keeper = keeper_of(store, idle_s=60.0)
    _, call = begin(keeper, "a", 0)
    keeper.end(call, Outcome("agent", 100, 50, nan, nan, 1.0, 0.0, attained=True), 1.0)
    keeper.expire(30.0)
    assert keeper.pending == 0
    keeper.expire(61.0)
    assert keeper.pending == 1


async def test_what_waits_is_written_at_the_end():
    store = FakeStore()
    keeper = keeper_of(store, Pacing(write_s=1e6))
    async with keeper.running():
        await eventually(lambda: store.loads == 1)
        run_program(keeper, "a", [100])
    assert len(store.kept) == 1


async def test_a_program_used_again_before_it_was_written_waits_once():
    keeper = keeper_of(FakeStore())
    for name in ("a", "b", "c"):
        run_program(keeper, name, [100])
    assert keeper.pending == 1


async def test_beyond_the_bound_the_oldest_are_dropped_and_counted():
    keeper = keeper_of(FakeStore())
    for length in range(1, 6):
        run_program(keeper, f"p{length}", [100] * length)
    assert (keeper.pending, keeper.counts.dropped) == (3, 2)


async def test_while_the_store_fails_serving_goes_on_with_one_warning_and_it_is_tried_again(caplog):
    store = FakeStore(record(5))
    store.failing = True
    keeper = keeper_of(store)
    with caplog.at_level(logging.WARNING):
        async with keeper.running():
            await eventually(lambda: keeper.counts.failures >= 3)
            run_program(keeper, "a", [100, 300])
            assert begin(keeper, "b", 0)[0].deadline_s < 100.0
            store.failing = False
            await eventually(lambda: keeper.counts.written == 1)
            assert keeper.graphs.graphs == 2
    assert [entry.getMessage() for entry in caplog.records] == [
        "The history of programs can't be used; serving goes on without: told to fail"
    ]


async def test_what_can_t_be_written_at_the_end_is_said_to_be_lost(caplog):
    store = FakeStore()
    keeper = keeper_of(store)
    async with keeper.running():
        await eventually(lambda: store.loads == 1)
        store.failing = True
        run_program(keeper, "a", [100])
    assert "1 graphs of finished programs are lost" in caplog.text
    assert store.closed


async def test_retries_come_ever_more_seldom(monkeypatch):
    store, pauses = FakeStore(), []
    store.failing = True
    sleep = asyncio.sleep

    async def fake_sleep(delay_s):
        pauses.append(delay_s)
        await sleep(0)

    keeper = keeper_of(store, Pacing(retry_s=1.0, longest_retry_s=5.0))
    monkeypatch.setattr("tempo_sidecar.history.keeper.asyncio.sleep", fake_sleep)
    async with keeper.running():
        while len(pauses) < 5:
            await sleep(0)
    assert pauses[:5] == [1.0, 2.0, 4.0, 5.0, 5.0]


async def test_graphs_that_other_nodes_wrote_are_taken_over_in_time():
    store, now_s = FakeStore(), [0.0]
    keeper = HistoryKeeper(PatternGraphs(), store, pacing=Pacing(write_s=0.01, reload_s=300.0), clock=lambda: now_s[0])
    async with keeper.running():
        await eventually(lambda: store.loads == 1)
        store.kept["agent", b""] = record(1)
        now_s[0] = 301.0
        await eventually(lambda: keeper.graphs.graphs == 1)
        assert store.loads == 2


async def test_the_history_of_one_run_warms_the_next(tmp_path):
    first, second = (keeper_of(open_store(str(tmp_path / "history.sqlite"), "chat")) for _ in range(2))
    async with first.running():
        run_program(first, "a", [100, 300])
    async with second.running():
        await eventually(lambda: second.graphs.graphs == 1)
        assert begin(second, "b", 0)[0].deadline_s == pytest.approx(25.0, rel=0.05)


async def test_a_call_that_outlives_its_program_does_no_harm():
    keeper = keeper_of()
    _, call = begin(keeper, "a", 0)
    keeper.graphs.finish("a", 1.0)
    keeper.end(call, Outcome("agent", 100, 50, nan, nan, 1.0, 0.0, attained=True), 2.0)
    assert keeper.graphs.running == 0


def test_a_stage_that_makes_no_sense_is_the_first():
    assert begin(keeper_of(), "a", -7)[1].stage == 0


def test_what_the_keeper_counts_can_be_scraped():
    keeper = keeper_of(FakeStore())
    run_program(keeper, "a", [100])
    run_program(keeper, "b", [100])
    samples = {(s.name, *s.labels.values()): s.value for metric in history_metrics(keeper) for s in metric.samples}
    assert samples["tempo_sidecar_history_graphs",] == 1
    assert samples["tempo_sidecar_history_pending",] == 1
    assert samples["tempo_sidecar_history_calls_total", "pattern"] == 1
    assert samples["tempo_sidecar_history_calls_total", "class"] == 1
