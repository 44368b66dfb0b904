import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_sidecar.forest.features import PROMPT_TOKENS, WIDTH, features
from tempo_sidecar.lengths import LengthQuery

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PROMPTS = st.sampled_from(["prompt", "messages", "input", "tools", "response_format", "stream"])
WILD = st.dictionaries(PROMPTS, ANY_JSON) | st.fixed_dictionaries(
    {"messages": st.lists(st.dictionaries(st.sampled_from(["role", "content", "text"]), ANY_JSON), max_size=4)}
)
WHOLE = st.integers(-(10**30), 10**30)


def row(body=None, **changes):
    return features(LengthQuery(**{"slo_class": "chat", "prompt_tokens": 100, "body": body} | changes))


def chat(*contents):
    return {"messages": [{"role": "user", "content": content} for content in contents]}


@given(WILD, WHOLE, st.none() | WHOLE, WHOLE)
def test_whatever_json_comes_is_a_row_of_finite_numbers(body, prompt_tokens, max_tokens, stage):
    found = row(body, prompt_tokens=prompt_tokens, max_tokens=max_tokens, stage=stage)
    assert found.shape == (WIDTH,)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": "\ud800 lone surrogate \x00"},
        {"prompt": "9" * 100_000},
        {"prompt": [[1, 2], [3]]},
        {"prompt": [10**400, 2]},
        {"input": [3, None], "prompt": {"id": "p"}},
        {"messages": [None, 3, "text", {"content": {"text": ["deep"]}}]},
        {"messages": [{"role": ["user"], "content": [{"type": "image_url"}, None, {"text": 7}]}]},
        json.loads('{"messages": [' + "[" * 900 + "]" * 900 + "]}"),
    ],
)
def test_known_nuisances_are_no_exception(body):
    assert np.isfinite(row(body)).all()


def test_the_cost_does_not_grow_with_the_prompt():
    short, long = "word " * 400, "word " * 2_000_000
    same = row(chat(short)) == row(chat(long))
    assert same.all()


def test_a_dict_nested_without_end_ends():
    nested = {}
    for _ in range(900):
        nested = {"content": nested}
    assert np.isfinite(row({"messages": [nested]})).all()


def test_what_the_last_message_asks_for_shows_wherever_it_stands_in_it():
    padding = "lorem ipsum " * 200
    plain = row(chat(padding))
    assert (row(chat("Summarise this. " + padding)) != plain).any()
    assert (row(chat(padding + " Summarise this.")) != plain).any()


def test_text_is_the_same_text_in_every_form_that_a_message_takes():
    parts = [{"type": "text", "text": "Why is the sky blue?"}]
    assert (row(chat(parts)) == row(chat("Why is the sky blue?"))).all()


def test_a_response_is_asked_for_by_the_same_text_as_a_chat_or_a_completion():
    assert (row({"input": chat("Why?", "Say 7 words.")["messages"]}) == row(chat("Why?", "Say 7 words."))).all()
    assert (row({"input": "Say 7 words."}) == row({"prompt": "Say 7 words."})).all()


def test_token_ids_count_as_words():
    assert (row({"prompt": [1, 2, 3]}) != row({"prompt": [7, 8, 9]})).any()


def test_what_is_stated_is_in_the_row():
    assert row(prompt_tokens=123)[PROMPT_TOKENS] == 123
    for changes in ({"max_tokens": 5}, {"stage": 3}, {"body": {"tools": [{}]}}, {"body": {"stream": True}}):
        assert (row(**changes) != row()).any()


def test_the_row_holds_no_text_and_no_process_has_its_own_hash():
    found = row(chat("one two two"))
    assert found.dtype == np.float32
    assert sorted(found[-48:][found[-48:] > 0]) == [1.0, 2.0]
    assert np.flatnonzero(found[-48:]).tolist() == [6, 17]


@given(st.text(st.characters(max_codepoint=127), max_size=200))
def test_a_word_counts_the_same_whether_or_not_all_the_text_is_ascii(text):
    sign = "\N{SNOWMAN}"  # no word, and not in ASCII
    plain, signed = row({"prompt": text}), row({"prompt": f"{text} {sign}"})
    words = slice(-48, None)
    assert (plain[words] == signed[words]).all()


def test_an_opening_that_comes_again_gives_the_same_row():
    first, again = row(chat("You are terse.", "Why?")), row(chat("You are terse.", "Why?"))
    assert (first == again).all()
    first[:] = 0.0
    assert (row(chat("You are terse.", "Why?")) == again).all()
