"""A finished program as bytes: small, exact in identity, safe to read from anywhere."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_core.graphs import Graph, GraphError, Stage

quantities = st.floats(0.0, 1e6)
anything = st.floats(allow_nan=True, allow_infinity=True)


def stages_of(numbers, most=80):
    return st.lists(st.builds(Stage, numbers, numbers, numbers, numbers, numbers), min_size=1, max_size=most)


@given(stages_of(anything))
def test_a_graph_packs_below_a_fifth_of_a_kilobyte_and_comes_back_the_same_whatever_the_program(stages):
    graph = Graph.of(stages)
    assert len(graph.packed) < 200
    assert Graph.unpack(graph.packed) == graph
    assert graph.count == len(stages)
    assert all(0.0 <= value < inf for stage in graph.stages for value in stage)


@given(stages_of(quantities, most=32))
def test_what_is_kept_is_within_a_few_per_cent(stages):
    for was, kept in zip(stages, Graph.of(stages).stages, strict=True):
        assert kept[:4] == pytest.approx(was[:4], rel=0.07, abs=0.07)


@given(stages_of(quantities))
def test_rounding_twice_is_rounding_once(stages):
    graph = Graph.of(stages)
    if graph.count == len(graph.stages):
        assert Graph.of(graph.stages) == graph


def test_beyond_the_stages_kept_one_by_one_their_sums_are():
    graph = Graph.of([Stage(2, 100, 50, 60, 1.5)] * 1000)
    assert (len(graph.stages), graph.count) == (32, 1000)
    assert graph.tail == pytest.approx((968 * 200, 968 * 100, 968 * 60, 968 * 1.5))


def test_a_stage_of_a_thousand_calls_takes_no_more_room_than_one_of_one():
    wide, narrow = (Graph.of([Stage(calls, 100, 50, 60, 0.0)]) for calls in (1000, 1))
    assert len(wide.packed) == len(narrow.packed)


def test_a_program_without_stages_is_no_graph():
    with pytest.raises(GraphError):
        Graph.of([])


@given(st.binary(max_size=220))
def test_bytes_from_anywhere_are_a_graph_or_a_clear_error(packed):
    try:
        assert Graph.unpack(packed).packed == packed
    except GraphError as error:
        assert str(error)


def header(version=1, kept=1, count=1, tail=(0.0, 0.0, 0.0, 0.0), codes=b"\x10" * 5):
    import struct

    return struct.pack("<BBH4f", version, kept, count, *tail) + codes


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        (b"", "too few"),
        (header(version=9), "version 9"),
        (header(kept=0, codes=b""), "0 stages"),
        (header(kept=33, count=33, codes=b"\x10" * 165), "33 stages"),
        (header(codes=b"\x10" * 4), "4 bytes"),
        (header(count=0), "0 stages"),
        (header(count=2), "2 stages"),
        (header(tail=(nan, 0.0, 0.0, 0.0)), "sums"),
        (header(tail=(0.0, -1.0, 0.0, 0.0)), "sums"),
        (header(tail=(0.0, 0.0, inf, 0.0)), "sums"),
    ],
)
def test_what_is_wrong_with_the_bytes_is_said(packed, says):
    with pytest.raises(GraphError, match=says):
        Graph.unpack(packed)
