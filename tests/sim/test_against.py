"""The simulator beside runs that are recorded as `tempo bench replay` records them, here from the simulator itself."""

import json
from dataclasses import replace
from itertools import accumulate
from random import Random

import pytest
from click.testing import CliRunner

from tempo_api.manifest import load_pool
from tempo_core.policies import POLICIES
from tempo_sim.against import compare, pairs
from tempo_sim.against_fit import Seen, fit_profile
from tempo_sim.cli import simulate as command
from tempo_sim.profiles import CPU_SMOLLM2_135M
from tempo_sim.run import simulate
from tempo_sim.traces import write_trace
from tempo_sim.workload import SimCall, SimUnit

MANIFESTS = """
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {name: chat}
spec: {pattern: Latency, objectives: {ttft: 2s, tbt: 150ms}, default: true}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: TempoPool
metadata: {name: small}
spec: {model: any}
"""
TRUTH = replace(CPU_SMOLLM2_135M, decode_base_s=0.05, prefill_base_s=0.05, sequence_s=0.004, prefill_token_s=0.0012)


@pytest.fixture
def pool(tmp_path):
    (tmp_path / "pool.yaml").write_text(MANIFESTS)
    return load_pool(tmp_path / "pool.yaml")


def workload(seed, count=60, longest=200):
    draw, at_s, units = Random(seed), 0.0, []
    for index in range(count):
        at_s += draw.expovariate(1.5)
        call = SimCall(draw.randint(5, longest), draw.randint(2, 60), 256)
        units.append(SimUnit(f"chat-{index}", "chat", at_s, ((call,),)))
    return units


def stamps(unit):
    return list(accumulate(unit.gaps_s, initial=unit.arrival_s + unit.ttft_s))


def served(units, pool, policy):
    return simulate(units, pool.classes, POLICIES[policy], TRUTH, settings=pool.settings).units


def line(unit, policy, seed, **facts):
    call = {"sent_s": unit.arrival_s, "prompt_tokens": unit.prompt_tokens, "stamps": [(at, 1) for at in stamps(unit)]}
    labels = {"policy": policy, "seed": seed, "id": unit.id, "slo_class": "chat", "arrival_s": unit.arrival_s}
    return json.dumps({**labels, "load": "replay", "stages": [[call]], "error": None, **facts})


@pytest.fixture
def recorded(tmp_path, pool):
    """Two seeds of vLLM's own priority order and one of Tempo's, each as the simulator serves it."""
    folder = tmp_path / "replay"
    (folder / "workloads").mkdir(parents=True)
    for seed in (1, 2):
        write_trace(folder / "workloads" / f"{seed}.jsonl", workload(seed))
    runs = [("vllm-priority", "priority", 1), ("vllm-priority", "priority", 2), ("tempo", "tempo", 1)]
    lines = [line(unit, row, seed) for row, name, seed in runs for unit in served(workload(seed), pool, name)]
    (folder / "requests.jsonl").write_text("\n".join(lines))
    return folder


def test_step_times_are_found_again_from_the_times_of_the_tokens(pool):
    units = served(workload(3), pool, "fcfs")
    found = fit_profile([Seen(stamps(unit), unit.prompt_tokens) for unit in units], CPU_SMOLLM2_135M)
    assert found.decode_base_s == found.prefill_base_s == pytest.approx(TRUTH.decode_base_s, rel=0.05)
    assert found.sequence_s == pytest.approx(TRUTH.sequence_s, rel=0.1)
    assert found.prefill_token_s == pytest.approx(TRUTH.prefill_token_s, rel=0.1)
    assert (found.max_places, found.kv_blocks) == (TRUTH.max_places, TRUTH.kv_blocks)


def test_prompts_longer_than_a_step_are_spread_over_the_steps_before(pool):
    units = served(workload(3, longest=400), pool, "fcfs")
    found = fit_profile([Seen(stamps(unit), unit.prompt_tokens) for unit in units], CPU_SMOLLM2_135M)
    assert found.step_s(8, 0, 150, 0) == pytest.approx(TRUTH.step_s(8, 0, 150, 0), rel=0.1)


def test_tokens_that_reach_the_client_one_after_the_other_change_little(pool):
    draw = Random(4)
    seen = [
        Seen([at_s + draw.uniform(0.0, 0.01) for at_s in stamps(unit)], unit.prompt_tokens)
        for unit in served(workload(3), pool, "fcfs")
    ]
    found = fit_profile(seen, CPU_SMOLLM2_135M)
    assert found.step_s(10, 0, 100, 0) == pytest.approx(TRUTH.step_s(10, 0, 100, 0), rel=0.1)


def test_no_coefficient_is_below_zero_whatever_came():
    calls = [Seen([0.1 * step + 0.001 * index for step in range(160)], 10) for index in range(5)]
    found = fit_profile(calls, CPU_SMOLLM2_135M)
    assert min(found.decode_base_s, found.sequence_s, found.prefill_token_s) >= 0.0
    assert found.step_s(5, 0, 0, 0) == pytest.approx(0.1, rel=0.05)


def test_too_few_tokens_are_refused():
    with pytest.raises(ValueError, match="with 0 stretches of 5 tokens says too little"):
        fit_profile([Seen([1.0, 2.0], 5)], CPU_SMOLLM2_135M)


def test_a_run_that_the_simulator_made_is_met_by_it(recorded, pool):
    made = list(pairs(recorded, pool, CPU_SMOLLM2_135M))
    assert [(pair.policy, pair.seed) for pair in made] == [("vllm-priority", 1), ("vllm-priority", 2), ("tempo", 1)]
    rows = compare(made)
    pooled = {row["policy"]: row for row in rows if row["seed"] is None and row["slo_class"] == "all"}
    assert pooled["vllm-priority"]["real"]["requests"] == 120
    for row in pooled.values():
        error = row["error"]
        assert abs(error["attainment"]) <= 0.05
        assert all(abs(error[key]) <= 0.1 for key in ("ttft_p50_s", "tbt_p50_s", "ttlt_p50_s", "tokens_per_s"))


def test_lengths_that_a_pool_had_learned_before_are_learned_before_in_the_simulator_too(recorded, pool):
    crowd = [replace(unit, at_s=unit.at_s / 8.0) for unit in workload(1)]
    write_trace(recorded / "workloads" / "1.jsonl", crowd)
    lines = [line(unit, "sjf", 1) for unit in served(crowd, pool, "sjf")]
    (recorded / "requests.jsonl").write_text("\n".join(lines))
    cold = list(pairs(recorded, pool, CPU_SMOLLM2_135M))[-1]
    taught = [
        replace(unit, stages=((replace(call, output_tokens=255 if call.prompt_tokens < 64 else 2),),))
        for unit in workload(9, count=300)
        for call in unit.calls
    ]
    write_trace(recorded / "workloads" / "0.jsonl", taught)
    warm = list(pairs(recorded, pool, CPU_SMOLLM2_135M))[-1]
    assert (cold.policy, cold.real) == (warm.policy, warm.real)
    assert cold.simulated != warm.simulated


def test_units_that_failed_are_left_out_on_both_sides_and_counted(recorded, pool):
    lines = (recorded / "requests.jsonl").read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), "error": "HTTP 500"})
    (recorded / "requests.jsonl").write_text("\n".join(lines))
    first = next(pairs(recorded, pool, CPU_SMOLLM2_135M))
    assert first.failed == 1
    assert [unit.id for unit in first.real] == [unit.id for unit in first.simulated]
    assert len(first.real) == 59


def test_the_command_prints_a_table_and_writes_the_rows(recorded, tmp_path):
    arguments = ["-f", tmp_path / "pool.yaml", "--profile", "cpu-smollm2-135m", "--against", recorded]
    result = CliRunner().invoke(command, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert "vllm-priority" in result.output
    assert "simulated" in result.output
    rows = json.loads((recorded / "against.json").read_text())
    assert {row["seed"] for row in rows} == {1, 2, None}
    assert rows[0]["fit"]["decode_base_s"]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda folder: (folder / "requests.jsonl").unlink(), "tempo bench replay --out writes it"),
        (lambda folder: (folder / "requests.jsonl").write_text("{}"), "line 1: .*policy"),
        (lambda folder: (folder / "workloads" / "1.jsonl").unlink(), "has no file for seed 1"),
    ],
)
def test_what_is_no_run_is_a_line_that_says_so(recorded, pool, spoil, problem):
    spoil(recorded)
    with pytest.raises(ValueError, match=problem):
        list(pairs(recorded, pool, CPU_SMOLLM2_135M))


def test_a_policy_that_cannot_be_simulated_is_named(recorded, pool):
    unit = served(workload(1, 1), pool, "fcfs")[0]
    (recorded / "requests.jsonl").write_text(line(unit, "endpoint", 1))
    with pytest.raises(ValueError, match="'endpoint' is no policy that can be simulated"):
        list(pairs(recorded, pool, CPU_SMOLLM2_135M))


def test_without_the_manifest_nothing_can_be_judged(recorded):
    result = CliRunner().invoke(command, ["--against", str(recorded)])
    assert result.exit_code == 1
    assert "give it with -f" in result.output
