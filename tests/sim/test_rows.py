import json

import pytest

from support.sim import CLASSES, FLAT, call, program, simulate, single
from tempo_bench import summary as demo
from tempo_core.policies import POLICIES
from tempo_sim.rows import figures, rows

UNITS = [
    single("a", 0.0, "chat", prompt=10, output=6),
    single("b", 0.1, "tool", prompt=20, output=9),
    single("c", 0.2, "chat", prompt=12, output=1),
    program("d", 0.3, [call(8, 3)], [call(8, 4)]),
]


def result():
    return simulate(UNITS, CLASSES, POLICIES["fcfs"], FLAT)


def test_there_is_a_row_for_each_class_and_one_for_all():
    found = rows(result(), load="1.0", policy="fcfs", seed=3)
    assert [row["slo_class"] for row in found] == ["agent", "chat", "tool", "all"]
    assert all((row["load"], row["policy"], row["seed"]) == ("1.0", "fcfs", 3) for row in found)
    assert json.loads(json.dumps(found)) == found


def test_all_is_the_sum_of_the_classes():
    *classes, everything = rows(result(), load="1.0", policy="fcfs", seed=3)
    for name in ("requests", "service_gain", "goodput_gain", "calls", "output_tokens"):
        assert everything[name] == pytest.approx(sum(row[name] for row in classes))
    assert everything["calls"] == 5


def test_rows_have_the_names_and_the_figures_of_the_demonstration():
    ours = rows(result(), load="x", policy="fcfs", seed=1)
    run = demo.Run("x", "fcfs", 1, 1.0, "", tuple(map(as_the_demo, result().units)))
    theirs = demo.summarise(run)
    for mine, other in zip(ours, theirs, strict=True):
        assert set(other) - set(mine) == {"errors"}
        assert set(mine) - set(other) == {"goodput_tokens_per_s", "goodput_requests_per_s"}
        assert {name: mine[name] for name in other if name != "errors"} == pytest.approx(
            {name: value for name, value in other.items() if name != "errors"}
        )


def as_the_demo(unit):
    shared = (
        "id", "slo_class", "arrival_s", "ended_s", "calls", "prompt_tokens", "output_tokens", "ttft_s", "ttlt_s",
        "gain", "goodput", "attained",
    )  # fmt: skip
    facts = {name: getattr(unit, name) for name in shared}
    return demo.UnitResult(**facts, error=None, gaps_s=tuple(unit.gaps_s))


def test_goodput_is_what_was_on_time_by_the_second():
    row = rows(result(), load="1.0", policy="fcfs", seed=3)[-1]
    duration_s = max(unit.ended_s for unit in result().units)
    assert row["goodput_requests_per_s"] == pytest.approx(4 / duration_s, abs=1e-3)
    # All are in time: of streams the output counts, of everything else the prompts too.
    assert row["goodput_tokens_per_s"] == pytest.approx((6 + 29 + 1 + 23) / duration_s, abs=1e-3)


def test_what_does_not_exist_is_none():
    row = figures([])
    assert (row["requests"], row["attainment"], row["ttft_p99_s"], row["tokens_per_s"]) == (0, None, None, None)
    tool = rows(result(), load="1.0", policy="fcfs", seed=3)[2]
    assert (tool["ttft_p50_s"], tool["tbt_p99_s"]) == (None, None)
    assert tool["ttlt_p50_s"] is not None
