"""Each scenario does what its name says, to every policy alike."""

from dataclasses import replace
from itertools import pairwise
from statistics import fmean, stdev

import pytest

from support.sim import CLASSES, FLAT, call, program, simulate, single
from tempo_core.graphs import PatternGraphs
from tempo_core.policies import POLICIES
from tempo_sim.contenders import ORACLE
from tempo_sim.lengths import OracleLengths
from tempo_sim.paper_workload import paper_classes
from tempo_sim.profiles import CPU_SMOLLM2_135M
from tempo_sim.scenarios import ADVERSARY, ATTACK, NONE, SCENARIOS, TENANTS
from tempo_sim.sources import paper
from tempo_sim.sweep import Sweep, run
from tempo_sim.tables import tables
from tempo_sim.wrong import OtherKindsGraphs, ScaledLengths, UnrelatedLengths

UNITS = [single(f"u{i}", 0.1 * i, ("chat", "tool")[i % 2], prompt=8, output=5 + i) for i in range(200)]


@pytest.mark.parametrize(("name", "tokens"), [("lengths-half", 20.0), ("lengths-double", 64.0), (NONE, 40.0)])
def test_predictions_are_scaled_within_the_cap(name, tokens):
    lengths = SCENARIOS[name].lengths(OracleLengths(), 1)
    assert set(lengths.predict("chat", call(output=40, cap=64))) == {tokens}


def test_no_prediction_falls_below_a_token():
    assert set(ScaledLengths(OracleLengths(), 0.5).predict("chat", call(output=1))) == {1.0}


def test_unrelated_predictions_are_those_of_other_calls_whatever_this_one_is():
    lengths = UnrelatedLengths(OracleLengths(), 1)
    truth = [10 * (1 + i % 50) for i in range(1000)]
    said = [lengths.predict("chat", call(output=tokens, cap=4096))[0] for tokens in truth]
    assert set(said) <= set(map(float, truth))
    assert fmean(said) == pytest.approx(fmean(truth), rel=0.1)
    mean = fmean(truth)
    assert abs(fmean((a - mean) * (b - mean) for a, b in zip(truth, said, strict=True))) < 0.1 * stdev(truth) ** 2


@pytest.mark.parametrize(("name", "scale"), [("slo-half", 0.5), ("slo-double", 2.0), ("slo-quadruple", 4.0)])
def test_all_objectives_are_scaled(name, scale):
    assert SCENARIOS[name].classes(paper_classes()) == paper_classes(slo_scale=scale)


def test_bursts_are_the_same_units_in_the_same_time_in_bursts():
    found = SCENARIOS["bursts"].units(UNITS, CLASSES, 1)
    assert [replace(unit, at_s=0.0) for unit in found] == [replace(unit, at_s=0.0) for unit in UNITS]
    assert found[-1].at_s == pytest.approx(UNITS[-1].at_s)
    gaps = [later.at_s - earlier.at_s for earlier, later in pairwise(found)]
    assert 2.0 < stdev(gaps) / fmean(gaps) < 4.5


def test_an_adversary_sends_ten_short_requests_for_each_unit_of_all_others():
    found = SCENARIOS["adversary"].units(UNITS, CLASSES, 1)
    attack = [unit for unit in found if unit.tenant == ADVERSARY]
    honest = [unit for unit in found if unit.tenant != ADVERSARY]
    assert len(attack) == 10 * len(UNITS)
    assert {unit.stages for unit in attack} == {((ATTACK,),)}
    assert {unit.slo_class for unit in attack} == {"chat", "strict", "tool", "batch"}
    assert [replace(unit, tenant="") for unit in honest] == UNITS
    assert len({unit.tenant for unit in honest}) == TENANTS
    assert [unit.at_s for unit in found] == sorted(unit.at_s for unit in found)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_without_units_has_no_trouble(name):
    assert list(SCENARIOS[name].units([], CLASSES, 1)) == []


def programs():
    """Chains and fans, ten of each, one after another."""
    chain = [[call(8, 3)] for _ in range(6)]
    fan = [[call(20, 9)] * 3, [call(10, 2)]]
    return [program(f"p{i}", 2.0 * i, *(chain if i % 2 else fan)) for i in range(20)]


def stages_left(graphs):
    """What was forecast at each stage's begin, for chains and for fans."""
    found = {"chain": [], "fan": []}

    class Watched:
        def begin(self, a_call, *facts, final):
            forecast = graphs.begin(a_call, *facts, final=final)
            if forecast.similarity:
                kind = "chain" if int(a_call.program[1:]) % 2 else "fan"
                found[kind].append(a_call.stage + 1 + forecast.stages_left)
            return forecast

        def __getattr__(self, name):
            return getattr(graphs, name)

    simulate(programs(), CLASSES, POLICIES["fcfs"], FLAT, graphs=Watched())
    return found


def test_with_wrong_graphs_programs_only_ever_find_those_of_another_kind():
    right, wrong = stages_left(PatternGraphs()), stages_left(OtherKindsGraphs(programs()))
    assert fmean(right["chain"]) > 5.0
    assert fmean(right["fan"]) < 4.0
    assert set(wrong["chain"]) <= {2.0}
    assert set(wrong["fan"]) <= {6.0}
    assert wrong["chain"] or wrong["fan"], "none found any"


@pytest.fixture(scope="module")
def rows():
    policies = ("fcfs", "tempo", "tempo-no-graphs", ORACLE)
    sweep = Sweep(paper(), "paper", paper_classes(), CPU_SMOLLM2_135M, policies, (1.0,), 12.0, (1,))
    return [row for done in run(replace(sweep, scenarios=tuple(SCENARIOS)), 0.3, jobs=2) for row in done.rows]


def test_rows_name_their_scenario_and_are_of_the_workloads_own_units(rows):
    everything = [row for row in rows if row["slo_class"] == "all"]
    assert {row["scenario"] for row in everything} == set(SCENARIOS)
    assert len(everything) == 4 * len(SCENARIOS)
    assert len({(row["requests"], row["output_tokens"]) for row in everything}) == 1


def test_each_scenario_has_a_table_of_its_own(rows):
    titles = [str(table.title) for table in tables(rows)]
    assert len(titles) == len(SCENARIOS)
    assert sum(title.endswith(", adversary") for title in titles) == 1


def test_only_what_a_scenario_is_about_changes(rows):
    def kept(policy, scenario):
        labels = {"policy": policy, "scenario": scenario}
        return [{**row, "scenario": NONE} for row in rows if row.items() >= labels.items()]

    for policy in ("fcfs", "tempo-no-graphs", ORACLE):
        assert kept(policy, "wrong-graphs") == kept(policy, NONE)
    for name in ("lengths-half", "lengths-double", "lengths-random"):
        assert kept("fcfs", name) == kept("fcfs", NONE)
        assert kept(ORACLE, name) == kept(ORACLE, NONE)
    assert kept("fcfs", "adversary") != kept("fcfs", NONE)
