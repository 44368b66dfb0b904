"""Tempo inside a whole real vLLM engine on the CPU, with a tiny model that has weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.pools import write_pool
from support.tiny_model import make_tiny_model

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

SCRIPT = Path(__file__).parents[1] / "support" / "inproc_engine.py"


def run(tmp_path, *scenario, frame_steps=20):
    model = make_tiny_model(tmp_path / "model", weights=True, dtype="float32")
    pool = write_pool(tmp_path)
    pool.write_text(pool.read_text().replace("policy: tempo", f"policy: tempo, frameSteps: {frame_steps}"))
    done = subprocess.run(
        [sys.executable, SCRIPT, model, pool, *scenario], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_late_urgent_request_overtakes_long_ones(tmp_path, mode):
    result = run(tmp_path, "overtaking", mode)
    assert result["status"]["state"] == "active"
    assert result["steps_to_first_token"] < 40 < result["first_long_ends_after"]
    assert result["lengths"] == [400]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_request_that_is_preempted_again_and_again_returns_exactly_the_tokens_it_would_have(tmp_path, mode):
    result = run(tmp_path, "preempting", mode, frame_steps=4)
    assert result["status"]["failures"] == 0
    assert result["preemptions"] >= 20
    assert result["together"] == result["alone"]
    assert len({tuple(tokens) for tokens in result["alone"].values()}) > 1, (
        "the model says the same whatever it is asked"
    )


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_forced_answer_ends_with_the_token_that_it_is_told_to_and_the_scheduler_sees_only_the_cap(tmp_path, mode):
    result = run(tmp_path, "forcing", mode, frame_steps=4)
    free = result["lengths"].pop("free")
    assert result["lengths"] == result["wanted"]
    assert result["stopped"].items() >= result["wanted"].items(), "an end token came too early, or none at the end"
    assert result["scheduler_saw"] == [40, 60]
    assert result["preemptions"] >= 10
    assert free == 40
