"""The graphs of one class: which match, which are one, which go."""

from math import log, nan
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tempo_core.graphs import Graph, GraphError, GraphLibrary, Record, Stage

HOUR_S = 3600.0
lengths = st.floats(1.0, 20_000.0)
stages = st.builds(
    lambda calls, prompt, output, tool_s: Stage(calls, prompt, output, output, tool_s),
    st.integers(1, 12), lengths, lengths, st.floats(0.0, 60.0),
)  # fmt: skip
programs = st.lists(stages, min_size=1, max_size=8)


def stage(calls=1, prompt=500.0, output=100.0, tool_s=0.0):
    return Stage(calls, prompt, output, output, tool_s)


def prefix(program, at):
    """What is known of a program when its stage `at` begins."""
    over = [(s.calls, s.prompt_tokens, s.output_tokens, s.tool_s) for s in program[:at]]
    return np.array([*over, (nan, program[at].prompt_tokens, nan, program[at].tool_s)])


def library_of(*programs, capacity=500, now_s=0.0):
    library = GraphLibrary("agent", capacity)
    for program in programs:
        library.add(Graph.of(program), now_s)
    return library


def same(a, b):
    return a.packed == Graph.of(b).packed


TREE = [stage(3, output=300.0), stage(1, output=50.0), stage(9, output=300.0), stage(1, output=900.0)]
LOOP = [stage(1, prompt=3000.0 * (turn + 1), output=120.0, tool_s=4.0 * (turn > 0)) for turn in range(20)]


def test_the_program_that_looks_like_the_running_one_tells_what_is_left():
    library = library_of(TREE, LOOP)
    tree, loop = library.match(prefix(TREE, 1), 1), library.match(prefix(LOOP, 1), 1)
    assert tree.weight @ tree.stages == pytest.approx(4.0, rel=0.05)
    assert loop.weight @ loop.stages == pytest.approx(20.0, rel=0.05)
    assert tree.weight @ tree.output_after == pytest.approx(9 * 300 + 900, rel=0.1)
    assert loop.weight @ loop.tool_after_s == pytest.approx(18 * 4.0, rel=0.1)


def test_at_the_first_stage_the_prompt_is_all_there_is_to_go_by_and_both_that_fit_it_match():
    library = library_of(TREE, [stage(1, output=100.0)], [stage(1, prompt=60_000.0)])
    matches = library.match(prefix(TREE, 0), 0)
    assert sorted(matches.stages.tolist()) == [1.0, 4.0]
    assert matches.similarity == pytest.approx(1.0, abs=0.01)


def test_a_graph_is_out_once_the_stages_so_far_do_not_match_and_counts_for_little_before_that():
    other = [TREE[0], *[stage(1, prompt=40_000.0, output=9000.0)] * 3]
    library = library_of(TREE, other)
    weights = [library.match(prefix(TREE, at), at).weight for at in range(4)]
    assert weights[0].min() > 0.4
    assert weights[1].min() < 0.02
    assert [len(weight) for weight in weights] == [2, 2, 1, 1]


def test_a_graph_that_has_ended_already_is_out():
    assert library_of(TREE[:2]).match(prefix(TREE, 2), 2) is None


def test_stages_of_different_width_compare():
    wider = [stage(4, output=300.0), *TREE[1:]]
    assert library_of(TREE).match(prefix(wider, 1), 1).similarity > 0.8


def test_nothing_known_matches_nothing():
    assert GraphLibrary("agent").match(prefix(TREE, 0), 0) is None


def test_stages_that_were_not_seen_here_are_left_out_of_the_comparison():
    seen = prefix(TREE, 3)
    seen[1] = nan
    assert library_of(TREE, LOOP).match(seen, 3).similarity == pytest.approx(1.0, abs=0.01)


@given(st.lists(programs, min_size=1, max_size=12), st.data())
@settings(max_examples=60)
def test_a_program_identical_to_one_in_the_library_matches_it_best(history, data):
    library = library_of(*history)
    known = data.draw(st.sampled_from(history))
    at = len(known) - 1
    matches = library.match(prefix(known, at), at)
    assert matches is not None
    assert matches.similarity > 0.6  # it may have been counted as a use of one much like it
    if len(library) == len(history):  # it stands for itself: nothing is nearer, in whatever order they came
        assert matches.similarity > 0.99
        alone = library_of(known).match(prefix(known, at), at)
        assert matches.similarity == pytest.approx(alone.similarity, rel=1e-9)
        assert alone.work[0] in matches.work[np.isclose(matches.weight, matches.weight.max())]


@given(programs, st.floats(0.95, 1.05))
@settings(max_examples=60)
def test_scaling_all_lengths_by_a_few_per_cent_hardly_changes_the_match(program, factor):
    scaled = [
        s._replace(prompt_tokens=s.prompt_tokens * factor, output_tokens=s.output_tokens * factor) for s in program
    ]
    at = len(program) - 1
    library = library_of(program)
    there, here = (library.match(prefix(seen, at), at).similarity for seen in (scaled, program))
    assert there == pytest.approx(here, abs=0.05)


@given(programs)
@settings(max_examples=60)
def test_weights_add_up_to_one_and_nothing_left_is_negative(program):
    library = library_of(program, TREE, LOOP)
    for at in range(len(program)):
        matches = library.match(prefix(program, at), at)
        assert matches.weight.sum() == pytest.approx(1.0)
        assert 0.0 < matches.similarity <= 1.0
        assert (matches.stages > at).all()
        assert (matches.work > 0.0).all()
        for left in (matches.work_after, matches.tool_after_s, matches.prompt_after, matches.output_after):
            assert (left >= 0.0).all()


def test_a_program_much_like_a_known_one_is_a_use_of_it_and_leaves_it_as_it_is():
    library = library_of(TREE)
    near = [s._replace(output_tokens=s.output_tokens * 1.1) for s in TREE]
    record = library.add(Graph.of(near), 0.0)
    assert len(library) == 1
    assert record.graph == Graph.of(TREE).packed
    assert record.rank == pytest.approx(log(2.0))


def test_uses_count_in_the_match():
    few, many = ([stage(), stage(output=length)] for length in (100.0, 1000.0))
    library = library_of(few, many, many, many)
    matches = library.match(prefix(few, 0), 0)
    assert dict(zip(matches.work_after.round(-2), matches.weight, strict=True)) == pytest.approx(
        {100: 0.25, 1000: 0.75}
    )


def test_a_use_an_hour_ago_counts_nine_tenths():
    library = library_of([stage(), stage(output=100.0)])
    library.add(Graph.of([stage(), stage(output=1000.0)]), HOUR_S)
    weight = library.match(prefix([stage()], 0), 0).weight
    assert weight.min() / weight.max() == pytest.approx(0.9)


@given(st.lists(programs, max_size=30), st.integers(1, 5))
@settings(max_examples=60)
def test_eviction_keeps_the_bound_and_what_came_last(history, capacity):
    library = GraphLibrary("agent", capacity)
    for now_s, program in enumerate(history):
        record = library.add(Graph.of(program), now_s * HOUR_S)
        assert len(library) <= capacity
        assert library.match(prefix(program, 0), 0) is not None
        assert Graph.unpack(record.graph).count == len(program)


def test_the_graph_used_least_is_evicted_not_the_oldest():
    library = library_of(TREE, TREE, LOOP, capacity=2)
    library.add(Graph.of([stage(prompt=9.0)]), 1.0)
    assert library.match(prefix(TREE, 3), 3) is not None
    assert library.match(prefix(LOOP, 3), 3) is None


def test_beyond_the_stages_kept_one_by_one_what_is_left_goes_down_evenly():
    long = [stage(prompt=0.0, output=100.0, tool_s=1.0)] * 132
    library = library_of(long)
    left = [library.match(prefix(long, at), at) for at in (32, 82, 131)]
    assert [float(m.work[0]) for m in left] == pytest.approx([100.0] * 3, rel=0.05)
    assert [float(m.work_after[0]) for m in left] == pytest.approx([9900.0, 4900.0, 0.0], rel=0.05)
    assert [float(m.tool_after_s[0]) for m in left] == pytest.approx([99.0, 49.0, 0.0], rel=0.05)
    assert library.match(prefix([*long, stage()], 132), 132) is None


def test_what_was_stored_comes_back_as_it_was():
    first = library_of(TREE, TREE, LOOP, now_s=50.0)
    records = [first.add(Graph.of(program), 60.0) for program in (TREE, LOOP)]
    second = GraphLibrary("agent")
    for record in [*records, *records]:  # twice does no harm
        second.restore(record, 60.0)
    a, b = (library.match(prefix(TREE, 0), 0) for library in (first, second))
    assert len(second) == 2
    assert b.weight == pytest.approx(a.weight)
    assert b.output_after == pytest.approx(a.output_after)


def test_a_stored_graph_replaces_one_of_lower_rank_only_and_none_ranks_far_beyond_now():
    library = library_of(TREE, LOOP, capacity=2)
    one = Graph.of([stage(prompt=9.0)]).packed
    library.restore(Record("agent", one, -1.0), 0.0)
    assert library.match(prefix([stage(prompt=9.0)], 0), 0) is None
    library.restore(Record("agent", one, 1e300), 0.0)
    assert library.match(prefix([stage(prompt=9.0)], 0), 0) is not None
    for _ in range(3):
        library.add(Graph.of(TREE), 200 * HOUR_S)
        library.add(Graph.of(LOOP), 200 * HOUR_S)
    assert library.match(prefix([stage(prompt=9.0)], 0), 0) is None


def test_garbage_is_not_restored():
    with pytest.raises(GraphError):
        GraphLibrary("agent").restore(Record("agent", b"garbage", 0.0), 0.0)


@pytest.mark.parametrize("at", [0, 3, 31])
def test_a_match_takes_less_than_a_millisecond_at_five_hundred_graphs(at):
    rng, library = np.random.default_rng(1), GraphLibrary("agent")
    while len(library) < 500:
        library.add(Graph.of([stage(1, *np.exp(rng.uniform(5.0, 8.0, 2))) for _ in range(32)]), 0.0)
    seen = prefix([stage(1, 700.0, 700.0)] * 32, at)
    took_s = []
    for _ in range(50):
        start_s = perf_counter()
        library.match(seen, at)
        took_s.append(perf_counter() - start_s)
    assert min(took_s) < 0.001  # the others measure what else the machine does
