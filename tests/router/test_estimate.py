"""Guesses about a request's cost."""

import pytest

from tempo_api.openai import output_cap
from tempo_router.estimate import OutputLengths


def test_an_unknown_class_is_guessed_and_then_learned():
    lengths = OutputLengths()
    assert lengths.expected("chat", {}, None) == (256, 256)
    lengths.learn("chat", 40)
    assert lengths.expected("chat", {}, None) == (40, 40)
    for _ in range(200):
        lengths.learn("chat", 100)
    assert lengths.expected("chat", {}, None) == pytest.approx((100, 100), rel=0.06)
    assert lengths.expected("tool", {}, None) == (256, 256)


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
    assert OutputLengths().expected("chat", body, output_cap(body)) == (tokens, tokens)
