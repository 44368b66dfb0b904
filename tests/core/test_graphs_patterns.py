"""Forecasts for running programs: sub-deadlines, and the work that is left."""

from math import inf, isfinite, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tempo_core.gain import Outcome
from tempo_core.graphs import Graph, GraphError, PatternGraphs, Record, Stage
from tempo_core.programs import Call, Programs
from tempo_core.slo import Objectives, Pattern, SLOClass

END_TO_END = SLOClass("agent", Pattern.COLLECTIVE, Objectives(end_to_end_s=100.0))
PER_STAGE = SLOClass("agent", Pattern.COLLECTIVE, Objectives(per_stage_s=20.0))
TOKEN_S = 0.03
"""The pace that `PatternGraphs` starts with."""


def answer(prompt, output, ttlt_s):
    return Outcome("agent", prompt, output, nan, nan, ttlt_s, 0.0, attained=True)


class FakeRun:
    """Sends programs through `Programs` and `PatternGraphs` in virtual time, as a sidecar does."""

    def __init__(self, slo=END_TO_END, **options):
        self.slo, self.now_s = slo, 1000.0
        self.programs, self.graphs = Programs(), PatternGraphs(**options)
        self._names = 0

    def run(self, stages, *, speed=1.0, tool_s=0.0, until=None):
        """Run stages, each a list of (prompt, output) tokens; returns the forecasts, and the record at the end."""
        self._names += 1
        forecasts = []
        for at, calls in enumerate(stages[:until]):
            self.now_s += tool_s * (at > 0)
            begun = [self.programs.begin(f"p{self._names}", self.slo, self.now_s) for _ in calls]
            made = [
                self.graphs.begin(call, self.slo, prompt, self.now_s)
                for call, (prompt, _) in zip(begun, calls, strict=True)
            ]
            assert len(set(made)) == 1
            forecasts.append(made[0])
            start_s = self.now_s
            for call, (prompt, output) in sorted(zip(begun, calls, strict=True), key=lambda pair: pair[1][1]):
                outcome = answer(prompt, output, output * TOKEN_S * speed)
                self.now_s = start_s + outcome.ttlt_s
                self.programs.end(call, outcome, self.now_s)
                self.graphs.end(call, outcome, self.now_s)
        return forecasts, self.graphs.finish(f"p{self._names}", self.now_s)


def chain(*outputs, prompt=100):
    return [[(prompt, output)] for output in outputs]


TREE = [[(300, 300)] * 3, [(900, 60)], [(400, 300)] * 9, [(2000, 900)]]


def test_without_a_match_the_class_s_own_rule_stands():
    forecasts, _ = FakeRun(PER_STAGE).run(chain(100, 100))
    assert [round(f.due_s - 1000.0) for f in forecasts] == [20, 40]
    assert [(f.similarity, f.stages_left, f.phi) for f in forecasts] == [(0.0, 0.0, 1.0)] * 2


def test_a_stage_s_sub_deadline_is_its_share_of_the_time_itself_included():
    run = FakeRun()
    run.run(chain(100, 200, 700, prompt=0))
    arrival_s = run.now_s
    forecasts, _ = run.run(chain(100, 200, 700, prompt=0), until=1)
    assert forecasts[0].due_s - arrival_s == pytest.approx(10.0, rel=0.05)
    assert forecasts[0].phi == pytest.approx(0.1, rel=0.05)


def test_the_work_and_the_stages_left_are_those_after_this_one():
    run = FakeRun()
    run.run(TREE)
    forecasts, _ = run.run(TREE)
    assert [f.stages_left for f in forecasts] == pytest.approx([3, 2, 1, 0])
    assert [f.output_tokens_left for f in forecasts] == pytest.approx([3660, 3600, 900, 0], rel=0.08, abs=1)
    assert [f.prompt_tokens_left for f in forecasts] == pytest.approx([6500, 5600, 2000, 0], rel=0.08, abs=1)


def test_a_stage_may_end_so_late_that_the_later_ones_still_make_the_programs_deadline():
    run = FakeRun()
    run.run(chain(100, 200, 700, prompt=0))  # 3, 6 and 21 s
    arrival_s = run.now_s
    forecasts, _ = run.run(chain(100, 200, 700, prompt=0))
    assert [f.latest_s - arrival_s for f in forecasts] == pytest.approx([73.0, 79.0, 100.0], rel=0.03)
    assert all(f.latest_s >= f.due_s for f in forecasts)


def test_of_stages_with_a_time_each_a_late_one_can_be_caught_up_with():
    run = FakeRun(PER_STAGE)
    run.run(chain(100, 100, prompt=0))
    arrival_s = run.now_s
    forecasts, _ = run.run(chain(100, 100, prompt=0))
    assert [f.due_s - arrival_s for f in forecasts] == pytest.approx([20.0, 40.0])
    assert [f.latest_s - arrival_s for f in forecasts] == pytest.approx([37.0, 40.0], rel=0.03)


def test_tool_time_counts_as_the_program_s_time_at_the_pace_that_calls_have():
    run = FakeRun()
    for _ in range(2):
        arrival_s = run.now_s
        forecasts, _ = run.run(chain(100, 100, prompt=0), tool_s=6.0)  # 3 s, 6 s of tools, 3 s
    assert forecasts[0].due_s - arrival_s == pytest.approx(100 * 3 / 12, rel=0.1)


def test_a_program_runs_tools_once_it_did_and_where_programs_like_it_do():
    run = FakeRun(PER_STAGE)
    forecasts, _ = run.run(chain(100, 100, 100), tool_s=6.0)
    assert [f.tools for f in forecasts] == [False, True, True]
    assert [f.due_s - 1000.0 for f in forecasts] == pytest.approx([20.0, 40.0, 60.0])
    assert [f.latest_s - 1000.0 for f in forecasts] == pytest.approx([20.0, 40.0, 60.0])
    assert [f.tools for f in run.run(chain(100, 100, 100), tool_s=6.0)[0]] == [True, True, True]


def test_what_a_client_takes_between_two_calls_is_no_tool():
    run = FakeRun(PER_STAGE)
    for _ in range(2):
        assert not any(f.tools for f in run.run(chain(100, 100, 100), tool_s=0.4)[0])


def test_what_early_stages_save_goes_to_the_later_ones():
    run = FakeRun()
    run.run(chain(250, 250, 250, 250, prompt=0))
    arrival_s = run.now_s
    forecasts, _ = run.run(chain(250, 250, 250, 250, prompt=0))  # each takes 7.5 s of its 25 s
    dues_s = [f.due_s - arrival_s for f in forecasts]
    assert dues_s == pytest.approx([25.0, 7.5 + 92.5 / 3, 15 + 85.0 / 2, 100.0], rel=0.02)


@given(st.lists(st.integers(10, 3000), min_size=1, max_size=12))
@settings(max_examples=50)
def test_while_stages_end_on_their_sub_deadlines_these_are_the_cumulative_shares(outputs):
    run = FakeRun()
    run.run(chain(*outputs, prompt=0))
    known = [stage.longest_tokens for stage in Graph.of([Stage(1, 0, o, o, 0) for o in outputs]).stages]
    arrival_s = now_s = run.now_s
    for at, output in enumerate(outputs):
        call = run.programs.begin("p", END_TO_END, now_s, stage=at)
        forecast = run.graphs.begin(call, END_TO_END, 0, now_s)
        assert forecast.due_s - arrival_s == pytest.approx(100.0 * sum(known[: at + 1]) / sum(known), rel=1e-6)
        now_s = forecast.due_s
        run.graphs.end(call, answer(0, output, 1.0), now_s)


calls = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 3000)), min_size=1, max_size=5)
programs = st.lists(calls, min_size=1, max_size=8)
classes = st.sampled_from(
    [END_TO_END, PER_STAGE, SLOClass("agent", Pattern.COLLECTIVE, Objectives(end_to_end_s=90.0, per_stage_s=20.0))]
)


@given(st.lists(programs, min_size=1, max_size=6), classes, st.floats(0.1, 20.0), st.floats(0.0, 30.0))
@settings(max_examples=60)
def test_sub_deadlines_increase_and_the_last_is_no_later_than_the_program_s_deadline(history, slo, speed, tool_s):
    run = FakeRun(slo)
    for program in history:
        run.run(program, tool_s=tool_s)
    arrival_s = run.now_s
    forecasts, _ = run.run(history[-1], speed=speed, tool_s=tool_s)
    dues_s = [f.due_s for f in forecasts]
    last_s = arrival_s + slo.deadline_s(len(history[-1]) - 1)
    assert all(0.0 < f.phi <= 1.0 for f in forecasts)
    assert all(f.due_s > arrival_s for f in forecasts)
    if slo is END_TO_END:
        assert dues_s == sorted(dues_s)
        assert max(dues_s) <= last_s + 1e-6
    elif len({len(program) for program in history}) == 1 and all(f.similarity for f in forecasts):
        # What a class grants by stage depends on how many are expected; here that is known all the time.
        assert dues_s == sorted(dues_s)
        assert dues_s[-1] <= last_s + 1e-6


def test_a_caller_s_looser_deadline_is_what_is_shared_out():
    run = FakeRun()
    run.run(chain(500, 500, prompt=0))
    call = run.programs.begin("p", END_TO_END, run.now_s, deadline_s=400.0)
    assert run.graphs.begin(call, END_TO_END, 0, run.now_s).due_s - run.now_s == pytest.approx(200.0, rel=0.01)


def test_a_program_that_is_late_is_due_at_its_deadline_not_later():
    run = FakeRun()
    run.run(chain(100, 100))
    first = run.programs.begin("p", END_TO_END, 5000.0)
    run.graphs.begin(first, END_TO_END, 100, 5000.0)
    run.graphs.end(first, answer(100, 100, 200.0), 5200.0)
    second = Call("p", 1, 5000.0, 5100.0, 0.0)
    assert run.graphs.begin(second, END_TO_END, 100, 5200.0).due_s == 5100.0


def test_a_class_without_a_deadline_has_none_and_still_learns():
    run = FakeRun(SLOClass("agent", Pattern.COLLECTIVE, Objectives()))
    run.run(TREE)
    forecasts, _ = run.run(TREE)
    assert [f.due_s for f in forecasts] == [inf] * 4
    assert forecasts[0].stages_left == 3


def test_a_retry_after_a_refusal_stays_in_its_stage_and_gains_no_time():
    run = FakeRun()
    run.run(chain(100, 100, 100))
    call = run.programs.begin("p", END_TO_END, run.now_s)
    first = run.graphs.begin(call, END_TO_END, 100, run.now_s)
    run.graphs.end(call, answer(100, 0, 0.0), run.now_s + 5)
    run.programs.end(call, answer(100, 0, 0.0), run.now_s + 5)
    again = run.programs.begin("p", END_TO_END, run.now_s + 6)
    assert run.graphs.begin(again, END_TO_END, 100, run.now_s + 6) == first


def test_a_program_of_which_stages_were_served_elsewhere_is_matched_but_not_learned():
    run = FakeRun()
    run.run(TREE)
    call = Call("p", 2, run.now_s - 20, run.now_s + 80, 0.0)
    forecast = run.graphs.begin(call, END_TO_END, 400, run.now_s)
    assert (forecast.stages_left, run.graphs.graphs) == (1.0, 1)
    run.graphs.end(call, answer(400, 77, 1.0), run.now_s)
    assert run.graphs.finish("p", run.now_s) is None


def test_a_last_stage_that_nobody_waited_for_is_no_part_of_the_graph():
    run = FakeRun()
    for at, output in ((0, 50), (1, 0)):
        call = Call("p", at, 0.0, 100.0, 0.0)
        run.graphs.begin(call, END_TO_END, 100, float(at))
        run.graphs.end(call, answer(100, output, 1.0), at + 0.5)
    assert Graph.unpack(run.graphs.finish("p", 2.0).graph).count == 1


def test_classes_do_not_share_their_graphs():
    run = FakeRun()
    run.run(chain(100, 100, 100))
    run.slo = SLOClass("research", Pattern.COLLECTIVE, Objectives(end_to_end_s=100.0))
    assert run.run(chain(100, 100, 100))[0][0].similarity == 0.0


def test_the_pace_follows_how_long_calls_take():
    run = FakeRun()
    assert run.graphs.pace_s == pytest.approx(TOKEN_S)
    for _ in range(200):
        run.run(chain(100, 100, prompt=0), speed=3.0)
    assert run.graphs.pace_s == pytest.approx(3 * TOKEN_S, rel=0.05)


def test_idle_programs_end_and_teach_and_one_with_a_call_in_flight_does_not_end():
    graphs = PatternGraphs(idle_s=60.0)
    idle, busy = (Call(name, 0, 0.0, 100.0, 0.0) for name in ("idle", "busy"))
    for call in (idle, busy):
        graphs.begin(call, END_TO_END, 100, 0.0)
    graphs.end(idle, answer(100, 50, 1.0), 1.0)
    assert graphs.expire(60.0) == []
    assert [record.slo_class for record in graphs.expire(61.0)] == ["agent"]
    assert graphs.running == 1
    graphs.end(busy, answer(100, 50, 1.0), 500.0)


def test_beyond_the_bound_the_longest_idle_end():
    graphs = PatternGraphs(max_programs=2)
    for at in range(4):
        call = Call(f"p{at}", 0, 0.0, 100.0, 0.0)
        graphs.begin(call, END_TO_END, 100, float(at))
        graphs.end(call, answer(100, 50, 1.0), float(at))
    graphs.expire(5.0)
    assert graphs.running == 2


garbage = st.tuples(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 5000), st.floats(0.0, 1e9))


@given(st.lists(garbage, min_size=1, max_size=40), classes)
@settings(max_examples=60)
def test_garbage_is_safe(rows, slo):
    graphs = PatternGraphs(capacity=3)
    for name in ("a", "b"):
        for prompt, output, stage, now_s in rows:
            call = Call(name, stage, rows[0][3], rows[0][3] + slo.deadline_s(stage), 0.0)
            forecast = graphs.begin(call, slo, prompt, now_s)
            assert isfinite(forecast.due_s)
            assert 0.0 < forecast.phi <= 1.0
            assert forecast.stages_left >= 0
            graphs.end(call, answer(prompt, output, 0.0), now_s)
        graphs.finish(name, 0.0)
    assert graphs.running == 0


@pytest.mark.parametrize("program", [[[(0, 1)]], [[(5, 5)] * 1000], [[(5, 5)]] * 1000])
def test_one_call_a_thousand_at_once_and_a_thousand_in_turn_are_programs_too(program):
    run = FakeRun()
    _, record = run.run(program)
    assert len(record.graph) < 200
    forecasts, _ = run.run(program)
    assert forecasts[0].stages_left == len(program) - 1
    assert forecasts[-1].due_s <= run.now_s + 100.0


def test_stages_beyond_what_is_followed_get_the_class_s_own_rule():
    graphs = PatternGraphs()
    call = Call("p", 5000, 0.0, 100.0, 0.0)
    assert graphs.begin(call, END_TO_END, 10, 0.0).due_s == 100.0
    graphs.end(call, answer(10, 10, 1.0), 1.0)
    assert graphs.finish("p", 1.0) is None


def test_restored_graphs_forecast_as_those_that_were_learned_here():
    run, other = FakeRun(), FakeRun()
    _, record = run.run(TREE)
    other.graphs.restore(record, run.now_s)
    assert other.run(TREE)[0][0].output_tokens_left == run.run(TREE)[0][0].output_tokens_left
    with pytest.raises(GraphError):
        other.graphs.restore(Record("agent", b"\x00" * 40, 0.0), 0.0)


def test_finishing_what_is_not_running_is_nothing():
    assert PatternGraphs().finish("unknown", 0.0) is None
