"""Guesses about a request's cost."""

import pytest

from tempo_api.openai import output_cap
from tempo_router.estimate import answers, output_tokens


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({}, 256),
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
    assert output_tokens(256.0, answers(body), output_cap(body)) == tokens
