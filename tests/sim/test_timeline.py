"""Runs over time."""

from dataclasses import replace

import pytest

from support.sim import CLASSES, FLAT, simulate, single
from tempo_core.policies import POLICIES
from tempo_sim.contenders import ORACLE
from tempo_sim.paper_workload import paper_classes
from tempo_sim.profiles import CPU_SMOLLM2_135M
from tempo_sim.report import pictured
from tempo_sim.rows import ALL
from tempo_sim.sources import paper
from tempo_sim.sweep import Sweep
from tempo_sim.sweep import run as run_sweep
from tempo_sim.timeline import BINS, Watched


def run(units):
    watched = Watched(POLICIES["fcfs"])
    result = simulate(units, CLASSES, watched, FLAT)
    return result, watched.timeline("fcfs", result.units)


def test_gain_over_time_adds_up_to_the_runs_by_class():
    units = [single(f"u{i}", 0.05 * i, ("chat", "tool")[i % 2], prompt=20, output=9) for i in range(40)]
    result, found = run(units)
    assert found.gain_per_s.keys() == {"chat", "tool"}
    for name, per_s in found.gain_per_s.items():
        earned = sum(unit.gain for unit in result.units if unit.slo_class == name)
        assert sum(per_s) * found.bin_s == pytest.approx(earned)
    assert found.bin_s * BINS == pytest.approx(result.duration_s)


def test_requests_beyond_the_places_are_seen_to_wait():
    _, found = run([single(f"u{i}", output=30) for i in range(12)])
    assert max(found.running) == FLAT.max_places
    assert max(found.waiting) >= 12 - FLAT.max_places
    assert found.waiting[-1] == 0.0


def test_an_idle_engine_has_no_requests():
    _, found = run([single("a"), single("b", 60.0)])
    assert found.running[BINS // 2] == 0.0 == found.waiting[BINS // 2]


SWEEP = Sweep(paper(), "paper", paper_classes(), CPU_SMOLLM2_135M, seconds=20.0, loads=(0.5, 1.5), rate_per_s=0.3)


def timelines(sweep):
    return {shown.policy: shown for _, shown in run_sweep(sweep, 0.3, jobs=1) if shown}


def test_of_a_sweep_the_highest_load_is_shown():
    of_both = timelines(replace(SWEEP, loads=(0.5, 3.0), seeds=(1, 2), policies=("fcfs", "tempo")))
    assert of_both.keys() == {"fcfs", "tempo"}
    calm = timelines(replace(SWEEP, loads=(0.5,), seeds=(1,), policies=("fcfs",)))
    assert max(calm["fcfs"].waiting) < max(of_both["fcfs"].waiting)


def test_a_run_without_units_is_not_shown():
    assert timelines(replace(SWEEP, seconds=0.01, policies=("fcfs",))) == {}


def test_arrival_order_and_the_best_other_baseline_stand_beside_tempo():
    policies = ("tempo", "sjf", "edf", "sarathi", "tempo-no-graphs", ORACLE)
    gains = dict(zip(policies, (5.0, 2.0, 3.0, 1.0, 9.0, 9.0), strict=True))
    case = {"load": "1.5", "replicas": 1, "scenario": "none", "slo_class": ALL, "seed": 1}
    rows = [{**case, "policy": name, "service_gain": gain} for name, gain in gains.items()]
    assert pictured(rows, replace(SWEEP, policies=policies)) == ["sarathi", "edf", "tempo"]
