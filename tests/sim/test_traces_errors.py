"""Every way in which a trace can be bad is one line: file, line, field, remedy."""

import gzip

import pytest

from tempo_sim.traces import Options, TraceError, read_trace
from tempo_sim.traces import read as reading
from tempo_sim.traces import text as text_files

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,374,44\n"
MOONCAKE = '{"timestamp": 5, "input_length": 10, "output_length": 5, "hash_ids": [1]}\n'
SESSIONS = (
    "trace,agent,parent_agent,idx,t_s,input_tokens,output_tokens,api_time_s,think_time_s,stop,hash_block_ranges64\n"
    "a,root,,0,0,640,10,2,0,tool_use,1-10\n"
)
CALLS = "kind,session,idx,t_s,input_chars,output_chars\nswe,s,0,0.0,4000,400\n"
OWN = (
    '{"format": "tempo-workload", "version": 1}\n{"at_s": 0, "stages": [[{"prompt_tokens": 9, "output_tokens": 2}]]}\n'
)

BAD = {
    "a number that is none": (AZURE.replace("374", "many"), ":2: ContextTokens: 'many' is not a whole number"),
    "a negative length": (
        AZURE.replace("374", "-4"),
        ":2: ContextTokens: '-4' is not a whole number from 0 to 99999999",
    ),
    "a time that is none": (AZURE.replace("2023-11-16", "16.11."), ":2: TIMESTAMP: '16.11. 18:15:46' is not a time"),
    "a row cut short": (AZURE + "2023-11-16 18:15:47,1\n", ":3: has 2 fields where the header has 3"),
    "time running back": (AZURE + "2023-11-16 18:15:45,1,1\n", ":3: arrives before the line above it; sort the file"),
    "a time zone in some rows": (AZURE + "2023-11-16 18:15:47+00:00,1,1\n", ":3: TIMESTAMP: has a time zone where"),
    "an open quote": (AZURE + '2023-11-16 18:15:47,"1\n', "is not CSV: unexpected end of data"),
    "no rows": (AZURE.splitlines()[0], "has no unit in this window"),
    "no timestamp": (MOONCAKE.replace('"timestamp": 5, ', ""), ":1: is not a format that is known"),
    "a text for a number": (MOONCAKE + MOONCAKE.replace("10", '"x"'), ":2: input_length: expected `int`, got `str`"),
    "a time below 0": (MOONCAKE.replace("5,", "-5,", 1), ":1: timestamp: expected `float` >= 0.0"),
    "a block below 0": (MOONCAKE.replace("[1]", "[1, -1]"), ":1: hash_ids[1]: expected `int` >= 0"),
    "a field of another dialect": (
        MOONCAKE.replace("{", '{"chat_id": 1, '),
        ":1: object contains unknown field `chat_id`",
    ),
    "half a line": (MOONCAKE + MOONCAKE[:20], ":2: is not a JSON object: "),
    "a line that is no object": (MOONCAKE + "[1, 2]\n", ":2: expected `object`, got `array`"),
    "nesting without end": (OWN + '{"id":' + "[" * 5000, ":3: "),
    "a range that is none": (
        SESSIONS.replace("1-10", "1-ten"),
        ":2: hash_block_ranges64: '1-ten' is neither a block's",
    ),
    "a range backwards": (SESSIONS.replace("1-10", "10-1"), ":2: hash_block_ranges64: '10-1' is neither"),
    "a range without bound": (SESSIONS.replace("1-10", "1-9999999999"), "names more than 4194304 blocks"),
    "a wait that is none": (SESSIONS.replace("2,0,tool", "2,soon,tool"), ":2: think_time_s: 'soon' is not a number"),
    "an endless wait": (
        SESSIONS.replace("2,0,tool", "2,inf,tool"),
        ":2: think_time_s: 'inf' is not a number of seconds",
    ),
    "a length of nothing": (CALLS.replace("4000", ""), ":2: input_chars: '' is not a whole number"),
    "a time of nothing": (CALLS.replace("0.0", ""), ":2: t_s: '' is not a number of seconds"),
    "a version to come": (
        OWN.replace('"version": 1', '"version": 2'),
        ":1: version: is 2; this reader knows version 1",
    ),
    "another format's name": (OWN.replace("tempo-workload", "x"), ":1: format: invalid enum value 'x'"),
    "no stage": (OWN.replace('[[{"prompt_tokens": 9, "output_tokens": 2}]]', "[]"), ":2: stages: expected `array` of"),
    "a stage of no call": (OWN.replace('{"prompt_tokens": 9, "output_tokens": 2}', ""), ":2: stages[0]: expected"),
    "no prompt": (
        OWN.replace('"prompt_tokens": 9', '"prompt_tokens": 0'),
        ":2: stages[0][0].prompt_tokens: expected",
    ),
    "an answer over its cap": (
        OWN.replace("2}", '2, "max_tokens": 1}'),
        ":2: max_tokens: is 1, below the output_tokens",
    ),
    "a prefix that is none": (OWN.replace("2}", '2, "prefix": "a"}'), ":2: prefix: 'a' is neither"),
    "an unknown field": (OWN.replace("2}", '2, "lenght": 1}'), "object contains unknown field `lenght`"),
    "one id twice": (
        OWN + (OWN.splitlines()[1].replace("{", '{"id": "a", ', 1) + "\n") * 2,
        "id: 'a' is the id of two",
    ),
    "a time beyond all": (OWN.replace('"at_s": 0', '"at_s": 1e999'), ":2: "),
    "a length beyond all": (CALLS.replace("4000", "9" * 12), ":2: input_chars: '999999999999' is not a whole number"),
    "another table": ("a,b,c\n1,2,3\n", ":1: is not a format that is known (tempo-workload, azure,"),
    "an empty file": ("", "its first line has no fields"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_one_line_with_its_place(tmp_path, name):
    text, message = BAD[name]
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def failure(path, **kwargs):
    with pytest.raises(TraceError) as caught:
        read_trace(path, **kwargs)
    return str(caught.value)


def test_a_file_that_is_not_there_or_is_a_folder_says_so(tmp_path):
    assert "can't be opened: No such file" in failure(tmp_path / "none")
    assert "can't be opened: Is a directory" in failure(tmp_path)


def test_a_file_that_is_no_text_says_so(tmp_path):
    path = tmp_path / "trace"
    path.write_bytes(AZURE.encode() + b"\xff\xfe\n")
    assert ":3: is not UTF-8 text" in failure(path)


@pytest.mark.parametrize("damage", [lambda data: data[:-12], lambda data: data[:30] + b"\x00\xff" + data[32:]])
def test_a_damaged_gzip_says_where_it_ends(tmp_path, damage):
    path = tmp_path / "trace.gz"
    path.write_bytes(damage(gzip.compress(MOONCAKE.encode() * 50)))
    assert "can't be read on: " in failure(path)


def test_a_line_without_end_is_refused_before_it_fills_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_LINE_BYTES", 100)
    path = tmp_path / "trace"
    path.write_text(AZURE + "9" * 101)
    assert ":3: is longer than 100 bytes" in failure(path)


def test_a_file_of_too_many_units_is_refused_with_a_window_as_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_UNITS", 2)
    path = tmp_path / "trace"
    path.write_text(MOONCAKE * 3)
    assert "more than 2 units in this window; take a shorter one" in failure(path)


def test_a_format_that_is_asked_for_must_be_known_and_must_fit(tmp_path):
    path = tmp_path / "trace"
    path.write_text(AZURE)
    assert "'csv' is not a format; there are tempo-workload, azure" in failure(path, format="csv")
    assert ":2: trace: is not a column; the header has TIMESTAMP" in failure(path, format="coding-sessions")
    assert ":1: is not a JSON object" in failure(path, format="mooncake")


def test_a_window_that_holds_nothing_is_an_error(tmp_path):
    path = tmp_path / "trace"
    path.write_text(AZURE)
    assert "has no unit in this window" in failure(path, start_s=10.0)


@pytest.mark.parametrize("field", ["prompt_scale", "max_tokens", "block_tokens", "chars_per_token"])
def test_options_of_nothing_are_refused(field):
    with pytest.raises(ValueError, match=f"{field} must be above 0"):
        Options(**{field: 0})
