from dataclasses import replace

import pytest

from tempo_sim.capacity import capacity_per_s
from tempo_sim.contenders import ORACLE
from tempo_sim.paper_workload import paper_classes
from tempo_sim.profiles import CPU_SMOLLM2_135M, LLAMA_8B_H100
from tempo_sim.sources import paper
from tempo_sim.sweep import Sweep, capacity, run
from tempo_sim.workload import SimCall, SimUnit


def chats(rate_per_s: float, seconds: float, seed: int) -> list[SimUnit]:
    """Evenly spaced, a hundred tokens each way."""
    count = int(rate_per_s * seconds)
    call = SimCall(100, 50, 100)
    return [SimUnit(f"{seed}-{i}", "chat", i / rate_per_s, ((call,),)) for i in range(count)]


def test_capacity_is_what_a_full_engine_serves():
    found = capacity_per_s(chats(100.0, 4.0, 1), paper_classes(), CPU_SMOLLM2_135M)
    # 16 places: 50 steps of 16 decodes, and 1,600 prompt tokens, for 16 chats.
    expected = 16 / (50 * (68e-3 + 16 * 3.1e-3) + 1600 * 0.95e-3)
    assert found == pytest.approx(expected, rel=0.15)


def test_what_clients_do_between_two_calls_takes_nothing_from_capacity():
    def programs(delay_s: float) -> list[SimUnit]:
        stages = ((SimCall(100, 50, 100),), (SimCall(100, 50, 100, delay_s),))
        return [SimUnit(str(i), "agent", 0.0, stages) for i in range(60)]

    busy, resting = (capacity_per_s(programs(s), paper_classes(), CPU_SMOLLM2_135M) for s in (0.0, 500.0))
    assert busy == resting


def test_a_straggler_at_the_end_does_not_count():
    even = chats(100.0, 4.0, 1)
    straggler = SimUnit("long", "tool", 0.0, ((SimCall(10, 900, 1000),),))
    alone = capacity_per_s(even, paper_classes(), CPU_SMOLLM2_135M)
    assert capacity_per_s([*even, straggler], paper_classes(), CPU_SMOLLM2_135M) == pytest.approx(alone, rel=0.1)


@pytest.fixture
def sweep() -> Sweep:
    options = {
        "policies": ("fcfs", "tempo", "tempo-no-graphs", ORACLE),
        "loads": (0.5, 1.5),
        "seconds": 5.0,
        "seeds": (1, 2),
    }
    return Sweep(chats, "chats", paper_classes(), CPU_SMOLLM2_135M, **options)


def test_every_policy_gets_the_same_units_in_every_case(sweep):
    found = [row for done in run(sweep, 4.0, jobs=2) for row in done.rows if row["slo_class"] == "all"]
    cases = {(row["load"], row["seed"], row["policy"]) for row in found}
    assert len(cases) == len(found) == 2 * 2 * 4
    for load in ("0.5", "1.5"):
        for seed in (1, 2):
            same = [row for row in found if (row["load"], row["seed"]) == (load, seed)]
            assert len({(row["requests"], row["output_tokens"], row["rate_per_s"]) for row in same}) == 1
    assert {row["trace"] for row in found} == {"chats"}
    assert {row["decay"] for row in found} == {"soft"}


def test_the_same_sweep_gives_the_same_rows_however_many_processes_run_it(sweep):
    def sorted_rows(jobs: int) -> list[str]:
        return sorted(str(row) for done in run(sweep, 4.0, jobs) for row in done.rows)

    assert sorted_rows(1) == sorted_rows(2)


def test_a_policy_that_there_is_not_is_named(sweep):
    wrong = Sweep(chats, "chats", paper_classes(), CPU_SMOLLM2_135M, policies=("tempo", "magic"))
    with pytest.raises(ValueError, match="'magic' is not a policy; there are fcfs"):
        list(run(wrong, 1.0))


def test_measured_capacity_grows_with_the_replicas_and_a_given_rate_does_not(sweep):
    def rates(**options: object) -> set[float]:
        tried = Sweep(chats, "c", paper_classes(), CPU_SMOLLM2_135M, ("fcfs",), (1.0,), 2.0, (1,), (1, 2), **options)
        return {row["rate_per_s"] for done in run(tried, 4.0, jobs=1) for row in done.rows}

    assert rates() == {4.0, 8.0}
    assert rates(rate_per_s=4.0) == {4.0}


def test_a_given_rate_is_the_capacity():
    assert capacity(Sweep(chats, "c", paper_classes(), CPU_SMOLLM2_135M, rate_per_s=3.0)) == 3.0


def test_under_the_papers_overload_tempo_keeps_more_promises_and_earns_more_than_arrival_order():
    """A short look at what `make bench-paper` measures in full."""
    engine = replace(LLAMA_8B_H100, max_places=32)
    sweep = Sweep(paper(), "paper", paper_classes(), engine, ("sarathi", "tempo"), (1.5,), 180.0, (1,))
    made = [row for done in run(sweep, capacity(sweep), jobs=2) for row in done.rows if row["slo_class"] == "all"]
    found = {row["policy"]: row for row in made}
    assert found["tempo"]["service_gain"] > found["sarathi"]["service_gain"]
    assert found["tempo"]["goodput_gain"] > 1.5 * found["sarathi"]["goodput_gain"]
    assert found["tempo"]["attainment"] > 1.5 * found["sarathi"]["attainment"]
