"""Classes: no trace has any, so that a rule gives them."""

from collections import Counter

import pytest

from tempo_core.slo import Pattern, SLOClass
from tempo_sim.traces import Options, TraceError, by_label, by_pattern, by_shares, read_trace

ROWS = "TIMESTAMP,ContextTokens,GeneratedTokens,team\n" + "".join(
    f"2023-11-16 18:15:{i // 20:02}.{i % 20:02},10,5,{('web', 'ops')[i % 2]}\n" for i in range(600)
)
PROGRAMS = "kind,session,idx,t_s,input_chars,output_chars\n" + "".join(
    f"{kind},{kind}{i},{call},{call},800,40\n" for kind in ("swe", "web") for i in range(20) for call in range(2)
)


def classes(**patterns):
    return {name: SLOClass(name, pattern) for name, pattern in patterns.items()}


@pytest.fixture
def counted(tmp_path):
    def read(text, **kwargs):
        path = tmp_path / "trace"
        path.write_text(text)
        return Counter(unit.slo_class for unit in read_trace(path, **kwargs))

    return read


def test_by_default_single_calls_are_spread_over_the_papers_chat_and_tool_classes(counted):
    found = counted(ROWS)
    assert set(found) == {"chat", "tool"}
    assert 240 < found["chat"] < 360


def test_by_default_programs_are_collective(counted):
    assert counted(PROGRAMS) == {"agent": 40}


def test_what_is_left_of_a_session_is_a_program_even_if_it_is_one_call(counted):
    assert counted("".join(PROGRAMS.splitlines(keepends=True)[:2])) == {"agent": 1}


def test_the_default_follows_the_patterns_of_the_classes_at_hand(counted):
    mine = classes(fast=Pattern.LATENCY, job=Pattern.COLLECTIVE, night=Pattern.BEST_EFFORT)
    assert set(counted(ROWS, classes=mine)) == {"fast", "night"}
    assert set(counted(PROGRAMS, classes=mine)) == {"job"}


def test_where_all_classes_are_collective_single_calls_are_programs_of_one(counted):
    assert counted(ROWS, classes=classes(job=Pattern.COLLECTIVE)) == {"job": 600}


def test_shares_go_to_any_class(counted):
    found = counted(ROWS, rule=by_shares({"chat": 1, "agent": 3}))
    assert set(found) == {"chat", "agent"}
    assert found["agent"] / found["chat"] == pytest.approx(3.0, rel=0.3)


def test_the_seed_says_who_gets_which_class(tmp_path):
    path = tmp_path / "trace"
    path.write_text(ROWS)
    first, again, other = ([u.slo_class for u in read_trace(path, options=Options(seed=s))] for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_column_names_the_class(counted):
    assert counted(ROWS, rule=by_label("team", {"web": "chat", "ops": "tool"})) == {"chat": 300, "tool": 300}
    assert counted(PROGRAMS, rule=by_label("kind", {"swe": "agent"}, otherwise="tool")) == {"agent": 20, "tool": 20}


@pytest.mark.parametrize(
    ("text", "kwargs", "message"),
    [
        (ROWS, {"rule": by_label("team", {"web": "chat"})}, ":3: no class is named for team 'ops'"),
        (ROWS, {"rule": by_label("kind", {})}, ":2: has no column 'kind', only TIMESTAMP"),
        (ROWS, {"rule": by_shares({"gold": 1})}, ":2: class: 'gold' is not one of the classes chat, tool, agent"),
        (PROGRAMS, {"classes": classes(chat=Pattern.LATENCY)}, "none of the classes chat is Collective; add one"),
    ],
)
def test_a_rule_that_does_not_fit_is_one_line_of_text(counted, text, kwargs, message):
    with pytest.raises(TraceError) as caught:
        counted(text, **kwargs)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shares", [{}, {"chat": 0.0}, {"chat": 2.0, "tool": -1.0}])
def test_shares_of_nothing_are_refused(shares):
    with pytest.raises(ValueError, match="above 0"):
        by_shares(shares)


def test_a_class_that_the_trace_names_stands_whatever_the_rule(counted):
    head = '{"format": "tempo-workload", "version": 1}\n'
    unit = '{"at_s": 0, %s"stages": [[{"prompt_tokens": 1, "output_tokens": 1}]]}\n'
    text = head + unit % '"class": "tool", ' + unit % ""
    assert counted(text, rule=by_shares({"chat": 1})) == {"tool": 1, "chat": 1}
    with pytest.raises(TraceError, match="'tool' is not one of the classes chat"):
        counted(text, classes=classes(chat=Pattern.LATENCY))


def test_a_rule_can_be_any_function(counted):
    default = by_pattern(classes(chat=Pattern.LATENCY))
    odd = lambda draft, random: "tool" if draft.line % 2 else default(draft, random)  # noqa: E731  # that is the point
    assert counted(ROWS, rule=odd) == {"chat": 300, "tool": 300}
