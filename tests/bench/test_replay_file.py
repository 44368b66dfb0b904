"""Workload files as requests."""

import gzip
import json

import pytest

from tempo_bench.workload_file import FORCED, read_workload
from tempo_core.slo import Objectives, Pattern, SLOClass

CLASSES = {
    "chat": SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=5.0, tbt_s=1.0)),
    "agent": SLOClass("agent", Pattern.COLLECTIVE, Objectives(per_stage_s=5.0)),
}
HEADER = {"format": "tempo-workload", "version": 1, "block_tokens": 4}


def call(prompt=10, output=3, cap=20, **facts):
    return {"prompt_tokens": prompt, "output_tokens": output, "max_tokens": cap, **facts}


def unit(id="u", at_s=0.0, *stages, slo_class="chat"):
    return {"id": id, "class": slo_class, "at_s": at_s, "stages": list(stages) or [[call()]]}


def read(tmp_path, *units, header=HEADER, salt="1"):
    path = tmp_path / "workload.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in (header, *units)))
    return read_workload(path, CLASSES, salt)


def test_a_request_holds_the_prompt_as_tokens_the_cap_and_the_length_for_the_sampler_only(tmp_path):
    ((sent,),) = read(tmp_path, unit()).units[0].stages
    body = sent.fields([])
    assert len(body["prompt"]) == 10
    assert all(isinstance(token, int) for token in body["prompt"])
    assert (body["max_tokens"], body["vllm_xargs"]) == (20, {FORCED: 3})


def test_the_length_goes_by_the_name_that_the_sampler_reads():
    forced = pytest.importorskip("tempo_vllm.forced_lengths", reason="vLLM is not installed", exc_type=ImportError)
    assert forced.XARG == FORCED


def test_equal_blocks_are_equal_tokens_and_nothing_else_is(tmp_path):
    workload = read(
        tmp_path,
        unit("a", 0.0, [[call(prefix="7-8")], [call(prefix="7-8")], [call(prefix="7 9")]][0]),
        unit("b", 1.0, [call(prefix="7 9")]),
        unit("c", 2.0, [call(prompt=12, prefix="7-9")]),
    )
    a, b, c = (unit.stages[0][0].prompt for unit in workload.units)
    assert a[:4] == b[:4] == c[:4]
    assert a[4:8] == c[4:8] != b[4:8]
    assert b[4:8] == c[8:12]
    assert a[8:] != b[8:]


def test_the_same_file_gives_the_same_tokens_and_another_seed_others(tmp_path):
    first, again, other = (read(tmp_path, unit(), salt=salt) for salt in ("1", "1", "2"))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_units_come_in_order_of_arrival_which_is_that_of_their_first_call(tmp_path):
    late = unit("late", 1.0, [call(delay_s=2.0), call(delay_s=2.5)], [call(delay_s=0.5)], slo_class="agent")
    first, second = read(tmp_path, late, unit("early", 2.0)).units
    assert (first.id, second.id, second.at_s) == ("early", "late", 3.0)
    assert [[sent.delay_s for sent in stage] for stage in second.stages] == [[0.0, 0.5], [0.5]]
    assert (first.program, second.program) == (False, True)


def test_a_zipped_file_is_read(tmp_path):
    path = tmp_path / "workload.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, (HEADER, unit()))).encode()))
    assert len(read_workload(path, CLASSES, "1").units) == 1


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([{"format": "azure", "version": 1}], "line 1: .*format"),
        ([{**HEADER, "version": 2}], "line 1: .*version"),
        ([HEADER], "has no units"),
        ([HEADER, unit(slo_class="nobody")], r"line 2: class: 'nobody' is no class of the pool; it has chat, agent"),
        ([HEADER, unit("u", 0.0, [call()], [call()])], "line 2: stages: .* Collective class; 'chat' is Latency"),
        ([HEADER, unit("u", 0.0, [call(output=30)])], "line 2: max_tokens: is 20, below the output_tokens of 30"),
        ([HEADER, unit("u", 0.0, [call(prefix="1-3")])], "line 2: prefix: its blocks have 12 tokens"),
        ([HEADER, unit("u", 0.0, [call(prefix="3-1")])], "line 2: prefix: '3-1' is neither"),
        ([HEADER, unit("u", 0.0, [call(prompt=0)])], r"line 2: .*>= 1.*prompt_tokens"),
        ([HEADER, unit(), {"id": "x"}], "line 3: .*missing"),
    ],
)
def test_what_is_wrong_with_a_file_is_a_line_that_names_the_field(tmp_path, lines, problem):
    with pytest.raises(ValueError, match=problem):
        read(tmp_path, *lines[1:], header=lines[0])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.jsonl"):
        read_workload(tmp_path / "nowhere.jsonl", CLASSES, "1")


def test_an_answer_of_another_length_is_a_complaint(tmp_path):
    ((sent,),) = read(tmp_path, unit()).units[0].stages
    assert sent.complaint(10, 3) is None
    assert sent.complaint(10, 20) == "10 tokens in and 20 out, not 10 and 3: are the engine's lengths forced?"
