import json
from dataclasses import replace

import orjson
import pytest

from tempo_bench.accounting import UnitResult
from tempo_bench.summary import Run, percentile, pooled, summarise

KEYS = {
    "load", "policy", "seed", "slo_class", "requests", "attainment", "service_gain", "ttft_p50_s", "ttft_p99_s",
    "tbt_p50_s", "tbt_p99_s", "ttlt_p50_s", "ttlt_p99_s",
}  # fmt: skip

CHAT = UnitResult("c", "chat", 0.0, 4.0, 1, 20, 40, 1.0, 4.0, 100.0, 80.0, True, None, (0.1, 0.3))
TOOL = UnitResult("t", "tool", 1.0, 9.0, 1, 50, 30, None, 8.0, 55.0, 0.0, False, None, ())
LOST = UnitResult("l", "tool", 2.0, 3.0, 1, 0, 0, None, None, 0.0, 0.0, False, "HTTP 500", ())
AGENT = UnitResult("a", "agent", 0.0, 10.0, 8, 800, 400, None, 10.0, 1600.0, 1600.0, True, None, ())


def run(*results, policy="fcfs", load="light", seed=1):
    return Run(load, policy, seed, 1.0, "f", results)


def by_class(rows):
    return {row["slo_class"]: row for row in rows}


def test_there_is_a_row_for_each_class_and_one_for_all():
    rows = summarise(run(CHAT, TOOL, AGENT))
    assert [row["slo_class"] for row in rows] == ["agent", "chat", "tool", "all"]


def test_rows_have_the_documented_keys():
    for row in summarise(run(CHAT, TOOL)):
        assert row.keys() >= KEYS
        assert (row["load"], row["policy"], row["seed"]) == ("light", "fcfs", 1)


def test_a_program_is_one_request_of_many_calls():
    row = by_class(summarise(run(AGENT)))["agent"]
    assert (row["requests"], row["calls"]) == (1, 8)


def test_figures_add_up_by_hand():
    row = by_class(summarise(run(CHAT, TOOL, AGENT)))["all"]
    assert row["requests"] == 3
    assert row["attainment"] == pytest.approx(2 / 3)
    assert row["service_gain"] == pytest.approx(1755.0)
    assert row["goodput_gain"] == pytest.approx(1680.0)
    assert row["duration_s"] == pytest.approx(10.0)
    assert row["tokens_per_s"] == pytest.approx(47.0)
    assert row["ttlt_p50_s"] == pytest.approx(8.0)


def test_a_failure_counts_in_attainment_and_is_shown():
    row = by_class(summarise(run(replace(TOOL, attained=True), LOST)))["tool"]
    assert (row["requests"], row["errors"], row["attainment"]) == (2, 1, 0.5)


def test_what_a_class_does_not_have_is_null_in_json_never_nan():
    rows = summarise(run(TOOL, LOST))
    row = by_class(json.loads(orjson.dumps(rows)))["tool"]
    assert row["ttft_p50_s"] is None
    assert row["tbt_p99_s"] is None
    assert row["ttlt_p50_s"] == 8.0


def test_a_class_that_finished_nothing_has_no_times():
    row = by_class(summarise(run(LOST)))["tool"]
    assert (row["ttlt_p50_s"], row["attainment"], row["service_gain"]) == (None, 0.0, 0.0)


@pytest.mark.parametrize(("q", "expected"), [(0, 1.0), (50, 2.5), (99, 3.97), (100, 4.0)])
def test_percentiles_are_linear_between_neighbours(q, expected):
    assert percentile([4.0, None, 1.0, 3.0, 2.0], q) == pytest.approx(expected)


def test_the_percentile_of_nothing_is_none():
    assert percentile([], 50) is None
    assert percentile([None], 50) is None


def test_gaps_of_all_streams_are_pooled_for_tbt():
    row = by_class(summarise(run(CHAT, replace(CHAT, gaps_s=(0.2,)))))["chat"]
    assert row["tbt_p50_s"] == pytest.approx(0.2)


def test_seeds_are_pooled_and_other_loads_and_policies_are_not():
    runs = [run(CHAT, seed=1), run(CHAT, CHAT, seed=2), run(CHAT, policy="tempo"), run(CHAT, load="overload")]
    assert pooled(runs, "light", "fcfs", "chat")["requests"] == 3


def test_a_run_is_sound_unless_more_than_a_tenth_failed():
    assert run(*[TOOL] * 9, LOST).sound
    broken = run(*[TOOL] * 8, LOST, LOST)
    assert not broken.sound
    assert broken.complaint == "fcfs, light, seed 1: 2 of 10 units failed, the first with: HTTP 500"
