"""Guesses about a request's cost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tempo_router.estimate import OutputLengths, prompt_tokens


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({}, 0),
        ({"prompt": "x" * 400}, 100),
        ({"prompt": ["x" * 400, "x" * 40]}, 110),
        ({"prompt": [1, 2, 3]}, 3),
        ({"prompt": [[1, 2, 3], [4]]}, 4),
        ({"messages": [{"role": "user", "content": "x" * 40}, {"role": "user", "content": None}]}, 10),
        ({"messages": [{"content": [{"type": "text", "text": "x" * 40}, {"type": "image_url"}]}]}, 10),
        ({"messages": "nonsense"}, 2),
        ({"messages": {"content": 3}}, 0),
    ],
)
def test_a_prompt_s_tokens_are_its_characters_by_four_and_ids_count_as_they_are(body, tokens):
    assert prompt_tokens(body) == tokens


def test_a_prompt_nested_without_end_is_not_followed():
    nested = "x" * 400
    for _ in range(5000):
        nested = [nested]
    assert prompt_tokens({"prompt": nested}) == 0


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["content", "text", "x"]), inner),
    max_leaves=20,
)


@settings(deadline=None)  # a busy machine is no failure
@given(json, json)
def test_any_body_has_an_estimate(messages, prompt):
    assert prompt_tokens({"messages": messages, "prompt": prompt}) >= 0


def test_an_unknown_class_is_guessed_and_then_learned():
    lengths = OutputLengths()
    assert lengths.expected("chat", {}) == 256
    lengths.learn("chat", 40)
    assert lengths.expected("chat", {}) == 40
    for _ in range(200):
        lengths.learn("chat", 100)
    assert lengths.expected("chat", {}) == pytest.approx(100, abs=1)
    assert lengths.expected("tool", {}) == 256


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"max_tokens": 16}, 16),
        ({"max_completion_tokens": 16, "max_tokens": 99}, 16),
        ({"max_tokens": 9999}, 256),
        ({"max_tokens": -5}, 1),
        ({"n": 3, "max_tokens": 10}, 30),
        ({"n": 2**60}, 256 * 128),
        ({"n": -1}, 256),
    ],
)
def test_the_caller_s_cap_and_number_of_choices_count(body, tokens):
    assert OutputLengths().expected("chat", body) == tokens
