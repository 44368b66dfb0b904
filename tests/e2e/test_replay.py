"""A workload through a real pool with its lengths forced, and through the simulator."""

import json
from io import StringIO
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from support.serving import QUICKSTART
from support.tiny_model import make_tiny_model
from tempo_api.manifest import load_pool
from tempo_bench.replay import ReplaySpec, run_replay
from tempo_sim.against import compare, pairs
from tempo_sim.export import fitted
from tempo_sim.profiles import CPU_SMOLLM2_135M
from tempo_sim.sources import paper
from tempo_sim.traces import write_trace

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


@pytest.fixture
def manifest(tmp_path) -> Path:
    """The quickstart's pool with a tiny random model."""
    documents = list(yaml.safe_load_all(QUICKSTART.read_text()))
    spec = documents[-1]["spec"]
    spec["model"] = str(make_tiny_model(tmp_path / "model"))
    spec["engine"]["args"].append("--load-format=dummy")
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump_all(documents))
    return tmp_path / "pool.yaml"


def test_answers_are_as_long_as_the_file_says_and_the_simulator_can_follow(manifest, tmp_path):
    units = fitted(paper(), 0.05, 1024)(2.0, 6.0, 1)
    write_trace(tmp_path / "workload.jsonl", units)
    spec = ReplaySpec(manifest, (tmp_path / "workload.jsonl",), tmp_path / "out", policies=("engine-priority",))
    console = Console(width=200, record=True, file=StringIO())
    assert run_replay(spec, console), console.export_text()
    lines = [json.loads(line) for line in (tmp_path / "out" / "requests.jsonl").read_text().splitlines()]
    answers = {line["id"]: [[call["output_tokens"] for call in stage] for stage in line["stages"]] for line in lines}
    assert answers == {unit.id: [[call.output_tokens for call in stage] for stage in unit.stages] for unit in units}
    (pair,) = pairs(tmp_path / "out", load_pool(manifest), CPU_SMOLLM2_135M)
    assert (pair.policy, pair.failed) == ("vllm-priority", 0)
    assert compare([pair])[-1]["simulated"]["requests"] == len(units)
