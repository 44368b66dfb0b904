"""`tempo simulate`, as a user runs it."""

import json
import re

import pytest
from click.testing import CliRunner

from tempo_sim.cli import simulate
from tempo_sim.traces import write_trace
from tempo_sim.workload import SimCall, SimUnit

SMALL = ["--profile", "cpu-smollm2-135m", "--rate", "0.5", "--seconds", "20", "--seeds", "1,2", "--loads", "1.0,2.0"]

MANIFESTS = """
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {name: chat}
spec: {pattern: Latency, objectives: {ttft: 2s, tbt: 300ms}, default: true}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: TempoPool
metadata: {name: small}
spec: {model: any}
"""


def chat(at_s: float) -> SimUnit:
    return SimUnit(f"chat-{at_s:g}", "chat", at_s, ((SimCall(20, 10, 64),),))


@pytest.fixture
def files(tmp_path):
    (tmp_path / "pool.yaml").write_text(MANIFESTS)
    write_trace(tmp_path / "trace.jsonl", [chat(float(second)) for second in range(60)])
    return tmp_path


def ran(*arguments: object, jobs: int = 1):
    return CliRunner().invoke(simulate, [*map(str, arguments), "--jobs", str(jobs)])


def test_a_comparison_prints_tables_and_writes_rows_and_a_report(tmp_path):
    result = ran(*SMALL, "--out", tmp_path / "out", "--json", tmp_path / "rows.json")
    assert result.exit_code == 0, result.output
    assert re.search(r"load 2, 1\.00 units/s, replicas 1", result.output)
    assert re.search(r"tempo +\d", result.output)
    rows = json.loads((tmp_path / "rows.json").read_bytes())
    assert rows == json.loads((tmp_path / "out" / "summary.json").read_bytes())
    assert {(row["load"], row["policy"], row["seed"]) for row in rows} == {
        (load, policy, seed) for load in ("1", "2") for policy in ("sarathi", "tempo") for seed in (1, 2)
    }
    assert rows[0].keys() >= {
        *("load", "policy", "seed", "slo_class", "requests", "attainment", "service_gain", "goodput_gain", "trace"),
        *("decay", "goodput_tokens_per_s", "goodput_requests_per_s", "tokens_per_s", "duration_s", "replicas"),
    }
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.count("data:image/svg+xml;base64,") == 3
    assert "Over time" in report
    assert "Load 2" in report


def test_more_replicas_keep_more_promises_of_the_same_traffic(files):
    pool, trace = files / "pool.yaml", files / "trace.jsonl"
    traffic = ["-f", pool, "--workload", trace, "--rate", "30", "--loads", "1"]
    result = ran(
        *SMALL[:2],
        *traffic,
        "--replicas",
        "1..3",
        "--policy",
        "fcfs",
        "--seconds",
        "15",
        "--seeds",
        "1",
        "--out",
        files / "out",
    )
    assert result.exit_code == 0, result.output
    rows = json.loads((files / "out" / "summary.json").read_bytes())
    kept = {row["replicas"]: row["attainment"] for row in rows if row["slo_class"] == "all"}
    assert kept[1] < kept[3]
    assert {row["rate_per_s"] for row in rows} == {30.0}
    assert {row["trace"] for row in rows} == {"trace.jsonl"}


def test_a_report_of_several_loads_and_replicas_mixes_neither(tmp_path):
    result = ran(*SMALL, "--replicas", "1,2", "--policy", "fcfs", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    report = (tmp_path / "report.html").read_text()
    assert report.count("data:image/svg+xml;base64,") == 5, "two pictures for each load, and one of a run"
    for load, rate in (("1", "0.50"), ("2", "1.00")):
        for replicas in (1, 2):
            assert f"Load {load}, {rate} units/s, replicas {replicas}" in report


def test_with_hard_gain_only_what_is_on_time_counts(tmp_path):
    result = ran(*SMALL, "--hard", "--policy", "fcfs", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "summary.json").read_bytes())
    assert {row["decay"] for row in rows} == {"hard"}
    assert all(row["service_gain"] == pytest.approx(row["goodput_gain"], rel=1e-6) for row in rows)


def test_the_papers_mix_can_arrive_as_a_trace_did(files):
    short = [*SMALL[:4], "--seconds", "8", "--seeds", "1", "--loads", "1", "--policy", "fcfs"]
    result = ran(*short, "--arrivals", files / "trace.jsonl", "--out", files / "out")
    assert result.exit_code == 0, result.output
    rows = json.loads((files / "out" / "summary.json").read_bytes())
    assert {row["trace"] for row in rows} == {"paper, arrivals of trace.jsonl"}
    refused = ran("--workload", files / "trace.jsonl", "--arrivals", files / "trace.jsonl")
    assert refused.exit_code == 1
    assert "--arrivals is for the paper's mix" in refused.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "magic"], "'magic' is not a policy; there are fcfs"),
        (["--scenario", "flood"], "'flood' is not a scenario; there are none, lengths-half"),
        (["--loads", "much"], "'much' is not a list of numbers such as 0.5,1.5"),
        (["--replicas", "1..x"], "'1..x' is not a list of integers such as 1,2,4 or 1..8"),
        (["--workload", "nowhere.csv"], "nowhere.csv"),
        (["--arrivals", "nowhere.csv"], "nowhere.csv: can't be opened"),
        (["-f", "nowhere.yaml"], "nowhere.yaml: can't be read"),
        (["--profile", "abacus"], "'abacus' is not one of"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments, message):
    result = ran(*arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output


def test_units_of_a_class_that_the_pool_lacks_are_refused(files):
    stranger = SimUnit("a", "tool", 0.0, ((SimCall(20, 10, 64),),))
    write_trace(files / "trace.jsonl", [stranger])
    result = ran("-f", files / "pool.yaml", "--workload", files / "trace.jsonl")
    assert result.exit_code == 1
    assert "'tool' is not one of the classes chat" in result.output
