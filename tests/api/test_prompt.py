import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_api.prompt import prompt_estimate

DATA_URL = "data:image/png;base64," + "A" * 100_000
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "x" * 40}}


@pytest.mark.parametrize(
    ("body", "tokens", "prompts"),
    [
        ({}, 1, 1),
        ({"prompt": "x" * 40}, 11, 1),
        ({"prompt": ["x" * 40, "y" * 40]}, 22, 2),
        ({"prompt": [1, 2, 3]}, 3, 1),
        ({"prompt": [[1, 2, 3], [4]]}, 4, 2),
        ({"messages": [{"role": "user", "content": "x" * 20}, {"role": "user", "content": "y" * 20}]}, 11, 1),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}]}, 11, 1),
        ({"messages": "nonsense", "prompt": {"a": 1}}, 3, 1),
        ({"messages": [None, 3, {"content": None, "type": []}]}, 1, 1),
        ({"input": "x" * 40, "instructions": "y" * 40}, 21, 1),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "x" * 40}]}]}, 11, 1),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x" * 40}]}, 11, 1),
        ({"messages": [], "tools": [{"type": "function", "name": "x" * 40}]}, 18, 1),
    ],
)
def test_prompts_are_measured_in_whatever_form_they_come(body, tokens, prompts):
    assert prompt_estimate(body) == (tokens, prompts)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": DATA_URL}}]}]},
        {"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": DATA_URL}}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": DATA_URL}]}]},
    ],
)
def test_an_image_counts_some_hundred_tokens_however_long_its_data_url(body):
    assert 100 < prompt_estimate(body)[0] < 1000


@pytest.mark.parametrize("key", ["messages", "tools", "prompt", "input"])
def test_a_prompt_nested_without_end_is_only_a_bad_guess(key):
    nested = json.loads("[" * 900 + "]" * 900)
    assert prompt_estimate({key: nested}) in {(1, 1), (0, 1), (450, 1)}


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["content", "text", "type", "function"]), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["messages", "prompt", "input", "instructions", "tools"]), ANY))
def test_any_body_has_an_estimate(body):
    tokens, prompts = prompt_estimate(body)
    assert tokens >= 0
    assert prompts >= 1
