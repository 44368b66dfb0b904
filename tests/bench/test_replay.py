"""`tempo bench replay` against an engine that stands in for every pool."""

import asyncio
import json
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO

import pytest
from click.testing import CliRunner
from rich.console import Console

from support.fake_engine import MODEL, FakeEngine
from tempo_bench.cli import bench
from tempo_bench.replay import ENGINE_ARGS, ReplaySpec, run_replay

MANIFEST = f"""
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: talk}}
spec: {{pattern: Latency, objectives: {{ttft: 5s, tbt: 1s}}, default: true}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: graph}}
spec: {{pattern: Collective, objectives: {{perStage: 5s}}}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: TempoPool
metadata: {{name: test}}
spec: {{model: {MODEL}}}
"""
HEADER = {"format": "tempo-workload", "version": 1}


def call(prompt, output, **facts):
    return {"prompt_tokens": prompt, "output_tokens": output, "max_tokens": 50, **facts}


UNITS = (
    {"id": "a", "class": "talk", "at_s": 0.0, "stages": [[call(20, 4)]]},
    {"id": "b", "class": "graph", "at_s": 0.1, "stages": [[call(9, 2), call(9, 3)], [call(30, 1, delay_s=0.2)]]},
)


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "pool.yaml").write_text(MANIFEST)
    files = [tmp_path / "x.jsonl", tmp_path / "y.jsonl"]
    for file in files:
        file.write_text("\n".join(map(json.dumps, (HEADER, *UNITS))))
    return ReplaySpec(tmp_path / "pool.yaml", tuple(files), tmp_path / "out")


async def replay(engine, spec):
    """Its verdict, the pools that were started, and what it said."""
    console, started = Console(width=200, record=True, file=StringIO()), []

    @contextmanager
    def fake_pool(manifest, policy, folder, *engine_args):
        started.append((policy, engine_args))
        yield f"{engine.url}/v1"

    sound = await asyncio.to_thread(run_replay, spec, console, fake_pool)
    return sound, started, console.export_text()


async def test_every_policy_gets_a_pool_that_forces_lengths_and_every_file_is_a_seed(spec):
    async with FakeEngine().running() as engine:
        sound, started, said = await replay(engine, spec)
    assert sound
    assert started == [(policy, ENGINE_ARGS) for policy in ("engine", "engine-priority", "tempo")]
    rows = json.loads((spec.out / "summary.json").read_text())
    assert {(row["policy"], row["seed"]) for row in rows} == {
        (policy, seed) for policy in ("fcfs", "vllm-priority", "tempo") for seed in (1, 2)
    }
    assert {row["output_tokens"] for row in rows if row["slo_class"] == "all"} == {10}
    assert (spec.out / "workloads" / "2.jsonl").read_text() == spec.files[1].read_text()
    assert "priority (vLLM)" in said


async def test_requests_are_written_with_every_call_and_the_time_of_every_token(spec):
    async with FakeEngine(pace_s=0.01).running() as engine:
        await replay(engine, spec)
    lines = [json.loads(line) for line in (spec.out / "requests.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 2 * 3
    program = next(line for line in lines if line["id"] == "b")
    assert [[call["output_tokens"] for call in stage] for stage in program["stages"]] == [[2, 3], [1]]
    assert [[call["prompt_tokens"] for call in stage] for stage in program["stages"]] == [[9, 9], [30]]
    (left, right), (last,) = program["stages"]
    assert len(right["stamps"]) == 3
    assert last["sent_s"] - max(left["ended_s"], right["ended_s"]) == pytest.approx(0.2, abs=0.1)


async def test_nobody_but_the_sampler_is_told_how_long_an_answer_will_be(spec):
    async with FakeEngine().running() as engine:
        await replay(engine, spec)
    bodies = [body for body in engine.bodies if len(body["prompt"]) != 64]  # without the warm-up
    assert {body["max_tokens"] for body in bodies} == {50}
    assert {body["vllm_xargs"].pop("forced_output_tokens") for body in bodies} == {1, 2, 3, 4}
    assert not any(body.pop("vllm_xargs") for body in bodies)
    assert set(bodies[0]) == {"model", "prompt", "max_tokens", "temperature", "stream", "stream_options"}


async def test_an_engine_that_does_not_force_lengths_is_found_out(spec):
    async with FakeEngine(obeys=False).running() as engine:
        sound, _, said = await replay(engine, spec)
    assert not sound
    assert "tokens in and 5 out, not" in said


async def test_a_file_for_warming_up_goes_first_and_is_not_counted(spec):
    spec = replace(spec, warm_up=spec.files[0], files=spec.files[1:], policies=("tempo",))
    async with FakeEngine().running() as engine:
        sound, _, _ = await replay(engine, spec)
    assert sound
    assert {row["seed"] for row in json.loads((spec.out / "summary.json").read_text())} == {1}
    assert len([body for body in engine.bodies if len(body["prompt"]) != 64]) == 2 * 4
    assert sorted(file.name for file in (spec.out / "workloads").iterdir()) == ["0.jsonl", "1.jsonl"]


async def test_an_endpoint_that_already_runs_needs_no_pool(spec):
    async with FakeEngine().running() as engine:
        spec = ReplaySpec(spec.manifest, spec.files, spec.out, url=f"{engine.url}/v1/")
        sound, started, _ = await replay(engine, spec)
    assert (sound, started) == (True, [])
    assert {row["policy"] for row in json.loads((spec.out / "summary.json").read_text())} == {"endpoint"}


def test_a_bad_file_is_a_line_not_a_traceback(spec, tmp_path):
    (tmp_path / "bad.jsonl").write_text("{}")
    result = CliRunner().invoke(bench, ["replay", str(tmp_path / "bad.jsonl"), "-f", str(spec.manifest)])
    assert result.exit_code == 1
    assert "line 1" in result.output
    assert "Traceback" not in result.output
