"""The public traces themselves, where they lie beside the project or where TEMPO_TRACES says."""

import json
import os
from pathlib import Path
from statistics import fmean

import pytest
from click.testing import CliRunner

from tempo_sim.cli import simulate
from tempo_sim.traces import Options, at_rate, cut, read_trace

FOLDER = Path(os.environ.get("TEMPO_TRACES") or Path(__file__).parents[2] / ".." / "shared" / "traces")


def trace(name):
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{name} is not there; set TEMPO_TRACES to the folder that has it")
    return path


def test_azures_conversations_have_the_published_figures():
    units = read_trace(trace("azure2023/AzureLLMInferenceTrace_conv.csv"))
    assert len(units) == 19_366
    assert fmean(unit.calls[0].prompt_tokens for unit in units) == pytest.approx(1155, abs=1)
    assert fmean(unit.calls[0].output_tokens for unit in units) == pytest.approx(211, abs=1)
    assert len(units) / units[-1].at_s == pytest.approx(5.53, abs=0.01)


def test_coding_sessions_become_programs_most_of_whose_prompts_are_in_the_cache_already():
    path = trace("claude-code/requests.csv.gz")
    units = read_trace(path, options=Options(prompt_scale=1 / 64), seconds=400.0)
    calls = [call for unit in units for call in unit.calls]
    seen, found = set(), 0
    for call in calls:
        found += sum(block in seen for block in call.prefix)
        seen.update(call.prefix)
    assert found > 0.9 * sum(len(call.prefix) for call in calls)
    assert max(call.delay_s for call in calls) <= 300.0


def test_agent_loops_become_one_program_a_session():
    units = read_trace(trace("agents/calls.csv"))
    assert len(units) == 45
    assert sum(len(unit.calls) for unit in units) == 1_148
    assert {unit.slo_class for unit in units} == {"agent"}


@pytest.mark.parametrize(
    ("arguments", "classes"),
    [
        (["azure2023/AzureLLMInferenceTrace_conv.csv"], {"chat", "tool"}),
        (["agents/calls.csv"], {"agent"}),
        (["claude-code/requests.csv.gz", "--prompt-scale", "0.0625", "--idle", "30"], {"agent"}),
    ],
)
def test_each_can_be_simulated_without_a_manifest(arguments, classes, tmp_path):
    name, *options = arguments
    short = ["--rate", "1", "--loads", "1", "--seconds", "8", "--seeds", "1", "--policy", "fcfs", "--jobs", "1"]
    result = CliRunner().invoke(simulate, ["--workload", str(trace(name)), *options, *short, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "summary.json").read_bytes())
    assert {row["slo_class"] for row in rows} == classes | {"all"}
    assert {row["trace"].split(",")[0] for row in rows} == {Path(name).name}


def test_a_coding_agents_prompts_have_to_be_shortened_for_this_engine():
    result = CliRunner().invoke(simulate, ["--workload", str(trace("claude-code/requests.csv.gz"))])
    assert result.exit_code == 1
    assert "tokens where 450560 fit; shorten all prompts (--prompt-scale" in result.output


def test_a_window_of_a_trace_at_another_rate_is_a_workload():
    units = read_trace(trace("azure2023/AzureLLMInferenceTrace_conv.csv"), start_s=600.0, seconds=600.0)
    busy = list(cut(at_rate(units, 12.0), seconds=120.0))
    assert len(busy) / 120.0 == pytest.approx(12.0, rel=0.25)
