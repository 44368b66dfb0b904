"""Formats: what a file says is what the units hold."""

import gzip
import json
from itertools import pairwise
from statistics import fmean

import pytest

from tempo_sim.paper_workload import PaperSpec, paper_workload
from tempo_sim.traces import Options, at_rate, cut, read_trace, write_trace
from tempo_sim.workload import SimCall, SimUnit

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.6805900,0,0
"""
MOONCAKE = (
    '{"timestamp": 0, "input_length": 1200, "output_length": 52, "hash_ids": [0, 1, 2]}\n'
    "\n"
    '{"timestamp": 3052, "input_length": 1100, "output_length": 5000, "hash_ids": [0, 7]}\n'
)
_COLUMNS = "trace agent parent_agent idx t_s input_tokens output_tokens api_time_s think_time_s stop model"
SESSIONS_HEADER = ",".join([*_COLUMNS.split(), "hash_block_ranges64"]) + "\n"
SESSION = (
    "a,root,,0,0,640,10,2,0,tool_use,m,1-10\n"
    "a,root/s1,root,0,0,320,11,1,0,tool_use,m,20-24\n"
    "a,root/s1,root,1,4,384,12,6,3,end_turn,m,20-25\n"
    "a,root/s2,root,0,0,320,13,1,0,end_turn,m,20-23 30\n"
    "a,root,,3,14.5,704,14,3,12.5,end_turn,m,1-11\n"
)
AGENT_CALLS = (
    "kind,session,idx,t_s,input_chars,output_chars\n"
    "swe,s,0,0.0,4000,400\n"
    "swe,s,1,2.0,6000,4000\n"
    "swe,s,2,3.0,6400,40\n"
    "web,t,0,0.0,800,40\n"
    "web,t,1,1.0,400,40\n"
)


@pytest.fixture
def trace(tmp_path):
    def write(text, name="trace"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


def only(units):
    (unit,) = units
    return unit


def test_azures_rows_are_single_calls_at_seconds_since_the_first(trace):
    units = read_trace(trace(AZURE))
    assert [unit.at_s for unit in units] == pytest.approx([0.0, 4.314579, 5.0])
    assert [(u.calls[0].prompt_tokens, u.calls[0].output_tokens) for u in units] == [(374, 44), (396, 109), (1, 1)]
    assert all(len(unit.calls) == 1 and unit.calls[0].prefix == () for unit in units)


def test_azures_later_traces_with_time_zones_and_more_digits_are_read_too(trace):
    text = AZURE.replace("0,374", "+00:00,374").replace("0,396", "+00:00,396").replace("00,0,0", "00+00:00,0,0")
    assert [unit.at_s for unit in read_trace(trace(text))] == pytest.approx([0.0, 4.314579, 5.0])


def test_mooncakes_timestamps_are_milliseconds(trace):
    assert [unit.at_s for unit in read_trace(trace(MOONCAKE))] == [0.0, 3.052]


def test_mooncakes_blocks_of_512_tokens_become_blocks_of_the_engine(trace):
    first, second = (unit.calls[0].prefix for unit in read_trace(trace(MOONCAKE)))
    assert len(first) == 1200 // 16
    assert len(second) == 1024 // 16
    assert first[:32] == second[:32]
    assert not set(first[32:]) & set(second[32:])


def test_a_trace_without_caps_gets_one_and_a_longer_answer_the_next_power_of_two(trace):
    assert [unit.calls[0].max_tokens for unit in read_trace(trace(MOONCAKE))] == [4096, 8192]
    looser = read_trace(trace(MOONCAKE), options=Options(max_tokens=6000))
    assert [unit.calls[0].max_tokens for unit in looser] == [6000, 6000]


def test_a_coding_session_is_a_program_with_the_time_of_its_tools(trace):
    text = SESSIONS_HEADER + "a,root,,0,0,640,10,2,0,tool_use,m,1-10\na,root,,1,9,704,20,2,7,tool_use,m,1-11\n"
    unit = only(read_trace(trace(text)))
    assert unit.stages == (
        (SimCall(640, 10, 4096, 0.0, unit.calls[0].prefix),),
        (SimCall(704, 20, 4096, 7.0, unit.calls[1].prefix),),
    )
    assert unit.slo_class == "agent"
    assert unit.tenant == "a"


def test_a_coding_sessions_prefix_blocks_are_kept_and_local_to_it(trace):
    other = SESSION.replace("a,root", "b,root")
    units = read_trace(trace(SESSIONS_HEADER + SESSION + other), options=Options(turns=False))
    (first, *_, last), foreign = units[0].calls, units[1].calls
    assert len(first.prefix) == 640 // 16
    assert last.prefix[: len(first.prefix)] == first.prefix
    assert not {b for call in units[0].calls for b in call.prefix} & {b for call in foreign for b in call.prefix}


def test_sub_agents_run_side_by_side_and_the_wait_after_them_counts_from_the_longest(trace):
    unit = only(read_trace(trace(SESSIONS_HEADER + SESSION)))
    shape = [[(call.output_tokens, call.delay_s) for call in stage] for stage in unit.stages]
    assert shape == [[(10, 0.0)], [(11, 0.0), (13, 0.0)], [(12, 3.0)], [(14, 2.5)]]


def test_an_answer_to_the_user_ends_a_program_but_not_a_sub_agents(trace):
    text = SESSIONS_HEADER + SESSION + "a,root,,4,99,720,15,3,60,end_turn,m,1-11\n"
    first, second = read_trace(trace(text))
    assert (len(first.calls), len(second.calls)) == (5, 1)
    assert second.calls[0].delay_s == 0.0
    assert (first.id, second.id) == ("a-0", "a-1")
    whole = only(read_trace(trace(text), options=Options(turns=False)))
    assert whole.calls[-1].delay_s == 60.0


def test_a_session_that_idles_too_long_comes_back_as_another_program(trace):
    text = SESSIONS_HEADER + SESSION.replace("tool_use", "").replace("14.5,704,14,3,12.5", "500,704,14,3,450")
    assert [len(unit.calls) for unit in read_trace(trace(text))] == [4, 1]
    assert len(read_trace(trace(text), options=Options(idle_s=1000.0))) == 1


def test_prompts_can_be_scaled_and_with_them_the_prefixes_but_not_the_answers(trace):
    unit = only(read_trace(trace(SESSIONS_HEADER + SESSION), options=Options(prompt_scale=0.25)))
    first, *_, last = unit.calls
    assert (first.prompt_tokens, first.output_tokens, len(first.prefix)) == (160, 10, 10)
    assert (last.prompt_tokens, len(last.prefix)) == (176, 11)
    assert last.prefix[:10] == first.prefix


def test_agent_calls_are_characters_and_the_answers_time_is_taken_off_the_wait(trace):
    units = {unit.tenant: unit for unit in read_trace(trace(AGENT_CALLS))}
    shape = [(call.prompt_tokens, call.output_tokens, round(call.delay_s, 3)) for call in units["s"].calls]
    assert shape == [(1000, 100, 0.0), (1500, 1000, 1.3), (1600, 10, 0.0)]
    assert all(len(stage) == 1 for stage in units["s"].stages)


def test_prompts_that_only_grow_extend_each_other_and_others_share_nothing(trace):
    units = {unit.tenant: unit for unit in read_trace(trace(AGENT_CALLS))}
    first, second, _ = (call.prefix for call in units["s"].calls)
    assert second[: len(first)] == first
    assert len(second) == 1500 // 16
    assert all(call.prefix == () for call in units["t"].calls)


def test_programs_of_sessions_arrive_at_random_mixed_and_each_in_its_order(trace):
    rows = "".join(f"{s},root,,{i},0,64,1,1,0,end_turn,m,1\n" for s in "abcde" for i in range(200))
    units = read_trace(trace(SESSIONS_HEADER + rows))
    gaps = [b.at_s - a.at_s for a, b in pairwise(units)]
    assert fmean(gaps) == pytest.approx(1.0, rel=0.1)
    for session in "abcde":
        own = [unit.id for unit in units if unit.tenant == session]
        assert own == [f"{session}-{i}" for i in range(200)]
    assert len({unit.tenant for unit in units[:50]}) == 5
    assert [u.at_s for u in units] != [
        u.at_s for u in read_trace(trace(SESSIONS_HEADER + rows), options=Options(seed=1))
    ]


@pytest.mark.parametrize("text", [AZURE, MOONCAKE, SESSIONS_HEADER + SESSION, AGENT_CALLS])
def test_gzip_line_ends_and_a_byte_order_mark_make_no_difference(trace, text):
    plain = [(unit.at_s, unit.stages) for unit in read_trace(trace(text))]
    for other, name in (
        (text, "x.gz"),
        ("\ufeff" + text, "bom"),
        (text.replace("\n", "\r\n"), "dos"),
        (text.rstrip(), "end"),
    ):
        assert [(unit.at_s, unit.stages) for unit in read_trace(trace(other, name))] == plain


@pytest.mark.parametrize("name", ["w.jsonl", "w.jsonl.gz"])
def test_our_own_format_gives_back_what_was_written(tmp_path, name):
    units = [
        *paper_workload(PaperSpec(rate_per_s=5.0, seconds=20.0, seed=1)),
        SimUnit("last", "agent", 21.0, ((SimCall(64, 5, 9, 0.25, (9, 8, 7)),),), "someone"),
    ]
    write_trace(tmp_path / name, units)
    assert read_trace(tmp_path / name) == units


def test_a_session_trace_survives_our_own_format(trace, tmp_path):
    units = read_trace(trace(SESSIONS_HEADER + SESSION))
    write_trace(tmp_path / "own", units)
    assert read_trace(tmp_path / "own") == units


def test_our_own_format_needs_no_more_than_lengths_and_an_arrival(trace):
    lines = [
        {"format": "tempo-workload", "version": 1},
        {"at_s": 1, "stages": [[{"prompt_tokens": 5, "output_tokens": 2}]]},
    ]
    unit = only(read_trace(trace("\n".join(map(json.dumps, lines)))))
    assert unit == SimUnit("trace:0", unit.slo_class, 1.0, ((SimCall(5, 2, 4096),),))


def test_blocks_of_our_own_format_become_the_engines(trace):
    lines = [
        {"format": "tempo-workload", "version": 1, "block_tokens": 32},
        {"at_s": 0, "stages": [[{"prompt_tokens": 100, "output_tokens": 2, "prefix": "1-3"}]]},
    ]
    path = trace("\n".join(map(json.dumps, lines)))
    assert len(only(read_trace(path)).calls[0].prefix) == 6
    assert only(read_trace(path, options=Options(block_tokens=32))).calls[0].prefix == (1, 2, 3)


def test_a_window_counts_arrivals_from_its_start_and_reads_no_further(trace):
    path = trace(AZURE + "2023-11-16 18:15:59,1,1\nthis is never read\n")
    units = read_trace(path, start_s=4.0, seconds=2.0)
    assert [unit.at_s for unit in units] == pytest.approx([0.314579, 1.0])


def test_a_window_of_units_that_are_there_is_cut_the_same_way():
    units = [SimUnit(str(i), "chat", float(i), ((SimCall(1, 1, 1),),)) for i in range(5)]
    assert [(unit.id, unit.at_s) for unit in cut(units, 1.0, 2.0)] == [("1", 0.0), ("2", 1.0)]


def test_a_rate_stretches_arrivals_and_leaves_delays(trace):
    units = read_trace(trace(AGENT_CALLS))
    faster = at_rate(units, 10.0)
    assert len(faster) / faster[-1].at_s == pytest.approx(10.0)
    assert [unit.stages for unit in faster] == [unit.stages for unit in units]
    ratios = {round(new.at_s / old.at_s, 9) for new, old in zip(faster, units, strict=True)}
    assert len(ratios) == 1


@pytest.mark.parametrize(("times", "rate"), [((), 1.0), ((0.0, 0.0), 1.0), ((0.0, 1.0), 0.0)])
def test_a_rate_needs_time_to_stretch(times, rate):
    units = [SimUnit(str(i), "chat", at_s, ((SimCall(1, 1, 1),),)) for i, at_s in enumerate(times)]
    with pytest.raises(ValueError, match="rate"):
        at_rate(units, rate)
