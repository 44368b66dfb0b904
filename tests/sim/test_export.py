"""Workloads as files, and lengths for a smaller engine."""

import pytest
from click.testing import CliRunner

from tempo_sim.cli import simulate
from tempo_sim.export import fitted
from tempo_sim.sources import paper
from tempo_sim.traces import read_trace
from tempo_sim.workload import SimCall, SimUnit


def one(*calls):
    units = [SimUnit("u", "agent", 0.0, (calls,))]
    return lambda rate_per_s, seconds, seed: units


def fit(source, scale, longest=None):
    (unit,) = fitted(source, scale, longest)(1.0, 1.0, 1)
    return unit.calls


def test_all_lengths_are_scaled_and_none_vanishes():
    long, short = fit(one(SimCall(1000, 200, 2048, 0.5), SimCall(3, 1, 64)), 0.1)
    assert (long.prompt_tokens, long.output_tokens, long.max_tokens, long.delay_s) == (100, 20, 205, 0.5)
    assert (short.prompt_tokens, short.output_tokens, short.max_tokens) == (1, 1, 7)


def test_prefixes_shrink_with_their_prompts_and_stay_shared():
    prefix = tuple(range(40))
    first, second = fit(one(SimCall(640, 9, 64, prefix=prefix), SimCall(700, 9, 64, prefix=(*prefix, 99))), 0.1)
    assert len(first.prefix) == 4
    assert second.prefix[:4] == first.prefix


def test_what_is_too_long_for_the_engine_is_cut_cap_first():
    long, capped = fit(one(SimCall(3000, 900, 1000), SimCall(100, 1500, 4000)), 1.0, 2048)
    assert (long.prompt_tokens, long.output_tokens, long.max_tokens) == (1048, 900, 1000)
    assert (capped.prompt_tokens, capped.output_tokens, capped.max_tokens) == (100, 1024, 1024)


def test_without_a_wish_the_source_is_what_it_was():
    source = paper()
    assert fitted(source, 1.0, None) is source


@pytest.mark.parametrize("scale", ["1", "0.1"])
def test_each_load_and_seed_becomes_a_file_that_can_be_read_again(tmp_path, scale):
    wishes = ["--rate", "1", "--loads", "1,2", "--seeds", "3,4", "--seconds", "30", "--scale", scale]
    result = CliRunner().invoke(simulate, [*wishes, "--write", str(tmp_path / "files")])
    assert result.exit_code == 0, result.output
    files = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert files == [f"load-{load}-seed-{seed}.jsonl" for load in (1, 2) for seed in (3, 4)]
    units = list(read_trace(tmp_path / "files" / files[0]))
    expected = fitted(paper(), float(scale), None)(1.0, 30.0, 3)
    assert units == list(expected)
