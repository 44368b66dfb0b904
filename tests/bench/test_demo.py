import asyncio
import json
from contextlib import contextmanager
from io import StringIO

import pytest
from rich.console import Console

from support.fake_engine import MODEL, FakeEngine
from tempo_bench.demo import DemoSpec, run_demo
from tempo_bench.single import LoadSpec, run_load

MANIFEST = f"""
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: chat}}
spec: {{pattern: Latency, objectives: {{ttft: 2s, tbt: 1s}}, default: true}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: tool}}
spec: {{pattern: Deadline, objectives: {{ttlt: 5s}}}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: agent}}
spec: {{pattern: Collective, objectives: {{perStage: 5s}}}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: TempoPool
metadata: {{name: test}}
spec: {{model: {MODEL}}}
"""


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "pool.yaml"
    path.write_text(MANIFEST)
    return path


async def run(engine, spec):
    """`run_demo` against `engine`, which stands in for every pool; its verdict, the policies started, what it said."""
    console, started = Console(width=200, record=True, file=StringIO()), []

    @contextmanager
    def fake_pool(manifest, policy, folder):
        started.append(policy)
        yield f"{engine.url}/v1"

    sound = await asyncio.to_thread(run_demo, spec, console, fake_pool)
    return sound, started, console.export_text()


async def test_every_policy_gets_the_same_workloads_and_the_results_are_written(manifest, tmp_path):
    spec = DemoSpec(manifest, tmp_path / "out", seeds=(1, 2), light_seconds=0.5, seconds=0.6, rate=20.0)
    async with FakeEngine(tokens=3).running() as engine:
        sound, started, said = await run(engine, spec)
    assert sound
    assert started == ["engine", "tempo"]
    rows = json.loads((tmp_path / "out" / "summary.json").read_text())
    runs = {(row["load"], row["policy"], row["seed"]) for row in rows}
    assert runs == {
        (load, policy, seed) for load in ("light", "overload") for policy in ("fcfs", "tempo") for seed in (1, 2)
    }
    by_policy = [[row["requests"] for row in rows if row["policy"] == policy] for policy in ("fcfs", "tempo")]
    assert by_policy[0] == by_policy[1]
    assert "<img" in (tmp_path / "out" / "report.html").read_text()
    lines = [json.loads(line) for line in (tmp_path / "out" / "requests.jsonl").read_text().splitlines()]
    assert len(lines) == sum(row["requests"] for row in rows if row["slo_class"] == "all")
    assert {"load", "policy", "seed", "slo_class", "gain", "gaps_s"} <= lines[0].keys()
    assert "About 3 minutes" in said
    assert "curl http://127.0.0.1:8000/v1/chat/completions" in said
    assert "Tempo / FCFS (vLLM)" in said


async def test_capacity_is_measured_once_and_scales_both_loads(manifest, tmp_path):
    spec = DemoSpec(manifest, tmp_path / "out", light_seconds=0.4, seconds=0.2, calibration_s=0.5)
    async with FakeEngine(tokens=5, pace_s=0.02).running() as engine:
        sound, _, said = await run(engine, spec)
    assert sound
    assert said.count("Capacity: ") == 1
    rows = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {row["policy"] for row in rows} == {"fcfs", "tempo"}


async def test_an_endpoint_that_refuses_everything_is_no_result(manifest):
    console = Console(width=200)
    async with FakeEngine(refuse_with=500).running() as engine:
        spec = LoadSpec(manifest, f"{engine.url}/v1", rate=20.0, seconds=0.5)
        with console.capture() as said:
            assert not await run_load(spec, console)
    assert "units failed, the first with: HTTP 500" in said.get()


def test_the_default_run_is_planned_to_fit_its_time():
    spec = DemoSpec("examples/quickstart.yaml", "build/demo")
    assert spec.estimate_s() <= 9.5 * 60


async def test_one_workload_can_go_to_any_endpoint(manifest, tmp_path):
    rows = tmp_path / "rows.json"
    console = Console(width=140)
    async with FakeEngine(tokens=3).running() as engine:
        spec = LoadSpec(manifest, f"{engine.url}/v1/", rate=20.0, seconds=0.5, json_file=rows)
        with console.capture():
            assert await run_load(spec, console)
    assert json.loads(rows.read_text())[-1]["slo_class"] == "all"


async def test_too_short_a_run_is_refused(manifest):
    with pytest.raises(ValueError, match="raise the rate or the seconds"):
        await run_load(LoadSpec(manifest, "http://127.0.0.1:9/v1", rate=0.001, seconds=0.1), Console())
