"""Units at any rate and for any time, from the paper's mix or from a trace."""

import pickle
from itertools import pairwise

import pytest

from tempo_sim.arrivals import TraceGaps
from tempo_sim.paper_workload import paper_classes
from tempo_sim.sources import paper, trace, window
from tempo_sim.traces import Options, TraceError, write_trace
from tempo_sim.workload import SimCall, SimUnit


def chats(count):
    """One a second."""
    return [SimUnit(str(i), "chat", float(i), ((SimCall(40, 10, 64, prefix=(1, 2)),),)) for i in range(count)]


def test_a_trace_starts_elsewhere_for_each_seed_and_keeps_its_rate():
    first, second = (list(window(chats(1000), 2.0, 100.0, seed)) for seed in (1, 2))
    assert first[0].id != second[0].id
    assert len(first) == pytest.approx(200, abs=2)
    assert max(unit.at_s for unit in first) < 100.0


def test_a_trace_that_is_too_short_goes_on_from_its_start():
    units = list(window(chats(10), 1.0, 35.0, 1))
    assert len(units) == pytest.approx(35, abs=1)
    assert len({unit.id for unit in units}) == len(units)
    assert all(later.at_s - earlier.at_s < 2.0 for earlier, later in pairwise(units))


def test_what_comes_again_is_not_in_the_cache():
    prefixes = {unit.calls[0].prefix for unit in window(chats(10), 1.0, 29.0, 0)}
    assert len(prefixes) == 3
    assert len({block for prefix in prefixes for block in prefix}) == 6


def test_a_trace_as_a_source_travels_to_other_processes(tmp_path):
    write_trace(tmp_path / "trace.jsonl", chats(50))
    source = trace(tmp_path / "trace.jsonl", paper_classes(), Options())
    assert pickle.loads(pickle.dumps(source))(2.0, 10.0, 1) == source(2.0, 10.0, 1)
    assert len(pickle.dumps(source)) < 10_000


def test_a_call_that_no_engine_here_can_hold_is_refused_with_the_remedy(tmp_path):
    write_trace(tmp_path / "trace.jsonl", chats(3))
    with pytest.raises(TraceError, match=r"jsonl:2: has a call of 50 tokens where 49 fit; shorten .*--prompt-scale"):
        trace(tmp_path / "trace.jsonl", paper_classes(), Options(longest_tokens=49))


def test_the_papers_mix_arrives_as_a_trace_did():
    bursts = TraceGaps([10.0 * i + j for i in range(40) for j in (0.0, 0.1, 0.2)])
    sent, evenly = (source(3.0, 40.0, 1) for source in (paper(bursts), paper()))
    assert [unit.stages for unit in sent[:50]] == [unit.stages for unit in evenly[:50]]
    assert len(sent) == pytest.approx(120, abs=3)
    short = [later.at_s - earlier.at_s < 0.05 for earlier, later in pairwise(sent)]
    assert sum(short) / len(short) == pytest.approx(2 / 3, abs=0.02)
