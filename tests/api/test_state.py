"""The lines by which sidecars tell routers of their replicas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_api.state import LONGEST_LINE, EngineState, decode_state, encode_state
from tempo_core.steptime import StepTime

COUNT = st.integers(0, 1 << 40)
SECONDS = st.floats(0, 10)
STATES = st.builds(
    EngineState,
    seq=COUNT,
    ready=st.booleans(),
    draining=st.booleans(),
    in_flight=COUNT,
    running=COUNT,
    waiting=COUNT,
    places=COUNT,
    cache_used=st.floats(0, 1),
    tokens_per_s=st.floats(0, 1e9),
    step_time=st.none() | st.builds(StepTime, SECONDS, SECONDS, SECONDS, SECONDS),
)


@given(STATES)
def test_a_state_is_one_short_line_and_comes_back_whole(state):
    line = encode_state(state)
    assert line.index(b"\n") == len(line) - 1 < LONGEST_LINE
    assert decode_state(line) == state


def test_fields_of_another_version_are_ignored_and_missing_ones_claim_nothing():
    state = decode_state(b'{"ready": true, "added_later": [1, 2], "step_time": {"base_s": 0.5, "added_later": 1}}')
    assert state == EngineState(ready=True, step_time=StepTime(base_s=0.5))
    assert (decode_state(b"{}").ready, decode_state(b"{}").places) == (False, 0)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b'{"ready": 1}',
        b'{"in_flight": -1}',
        b'{"cache_used": 1.5}',
        b'{"ready": "\xff"}',
    ],
)
def test_what_is_no_state_is_a_value_error(line):
    with pytest.raises(ValueError, match=r"."):
        decode_state(line)
