from collections import Counter
from dataclasses import replace
from itertools import accumulate, islice, pairwise
from math import inf
from random import Random
from statistics import fmean, pstdev, quantiles

import pytest

from tempo_core.slo import Pattern
from tempo_sim import paper_lengths
from tempo_sim.arrivals import Bursts, Poisson, TraceGaps
from tempo_sim.paper_lengths import TableRow, fit, lengths
from tempo_sim.paper_workload import SLO_CLASS, Kind, PaperSpec, paper_classes, paper_workload
from tempo_sim.workload import BLOCK_TOKENS

ROWS = {name: row for name, row in vars(paper_lengths).items() if isinstance(row, TableRow)}
SPEC = PaperSpec(rate_per_s=5.0, seconds=120.0, seed=3)
ONLY = {kind: replace(SPEC, mix={kind: 1}, rate_per_s=100.0, seconds=4.0) for kind in Kind}


def assert_like(drawn, row, *, rel, share):
    """Mean within `rel`; P50 and P95 by how many draws lie below them, since one of the rows is steep at its median."""
    assert fmean(drawn) == pytest.approx(row.mean, rel=rel)
    assert fmean(length <= row.p50 for length in drawn) == pytest.approx(0.5, abs=share)
    assert fmean(length <= row.p95 for length in drawn) == pytest.approx(0.95, abs=share)


@pytest.mark.parametrize("name", ROWS)
def test_twenty_thousand_draws_match_their_row_of_the_table(name):
    row, random = ROWS[name], Random(1)
    drawn = random.choices(lengths(row), k=20_000)
    assert_like(drawn, row, rel=0.03, share=0.01)
    assert pstdev(drawn) == pytest.approx(row.std, rel=0.08)
    p50, p95 = (quantiles(drawn, n=20)[i] for i in (9, 18))
    assert p50 == pytest.approx(row.p50, rel=0.25 if name == "RESEARCH_CALL_INPUT" else 0.04)  # see assert_like
    assert p95 == pytest.approx(row.p95, rel=0.06)
    assert min(drawn) >= 1


@pytest.mark.parametrize("name", ROWS)
def test_the_fit_itself_meets_mean_and_deviation_within_one_per_cent(name):
    row = ROWS[name]
    assert fit(row).mean == pytest.approx(row.mean, rel=0.01)
    assert fit(row).std == pytest.approx(row.std, rel=0.01)


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs"),
    [
        (Kind.CHAT, "CHAT_INPUT", "CHAT_OUTPUT"),
        (Kind.TOOL, "RESEARCH_CALL_INPUT", "RESEARCH_CALL_OUTPUT"),
        (Kind.TREE, "TREE_INPUT", "TREE_OUTPUT"),
        (Kind.RESEARCH, "RESEARCH_INPUT", "RESEARCH_OUTPUT"),
    ],
)
def test_a_units_totals_over_all_its_calls_match_the_table(kind, inputs, outputs):
    units = paper_workload(replace(ONLY[kind], seconds=15.0))
    assert_like([sum(call.prompt_tokens for call in unit.calls) for unit in units], ROWS[inputs], rel=0.1, share=0.04)
    assert_like([sum(call.output_tokens for call in unit.calls) for unit in units], ROWS[outputs], rel=0.1, share=0.04)


def test_the_same_seed_gives_the_same_workload_and_another_seed_another():
    assert paper_workload(SPEC) == paper_workload(SPEC)
    assert paper_workload(SPEC) != paper_workload(replace(SPEC, seed=4))


@pytest.mark.parametrize("other", [{"rate_per_s": 10.0}, {"arrivals": Bursts(3.0)}])
def test_rate_and_way_to_arrive_change_when_but_not_what_is_offered(other):
    first, second = paper_workload(SPEC), paper_workload(replace(SPEC, **other))
    pairs = list(zip(first, second, strict=False))
    assert len(pairs) > 100
    assert all(a.stages == b.stages and a.slo_class == b.slo_class for a, b in pairs)
    assert any(a.at_s != b.at_s for a, b in pairs)


def test_every_block_of_three_pairs_has_each_pattern_twice():
    classes = [unit.slo_class for unit in paper_workload(SPEC)]
    for start in range(0, len(classes) - 6, 6):
        assert sorted(classes[start : start + 6]) == ["agent", "agent", "chat", "chat", "tool", "tool"]


def test_collective_units_are_trees_and_deep_research_in_equal_numbers():
    kinds = [unit.id.split("-")[0] for unit in paper_workload(SPEC)]
    assert abs(kinds.count("tree") - kinds.count("research")) <= 1


def test_units_arrive_in_order_within_the_run_with_ids_of_their_own():
    units = paper_workload(SPEC)
    times = [unit.at_s for unit in units]
    assert times == sorted(times)
    assert times[0] > 0.0
    assert times[-1] < SPEC.seconds
    assert len({unit.id for unit in units}) == len(units)


def widths(kind, spec=SPEC):
    units = paper_workload(replace(spec, mix={kind: 1}))
    return {tuple(len(stage) for stage in unit.stages) for unit in units}


def test_a_tree_has_the_stages_of_the_papers_first_version():
    assert widths(Kind.TREE) == {(3, 1, 9, 1)}


def test_a_tree_can_have_the_stages_of_the_papers_third_version():
    assert widths(Kind.TREE, replace(SPEC, shapes={Kind.TREE: [(3, 1, 3, 1)]})) == {(3, 1, 3, 1)}


def test_deep_research_has_six_stages_some_with_calls_side_by_side():
    assert widths(Kind.RESEARCH) == {(1, 1, 1, 1, 1, 1), (1, 2, 1, 1, 1, 1)}


@pytest.mark.parametrize("kind", [Kind.TREE, Kind.RESEARCH])
def test_all_calls_of_a_program_share_its_problem_and_no_other_programs(kind):
    seen = set()
    for unit in paper_workload(ONLY[kind]):
        shortest = min((call.prefix for call in unit.calls), key=len)
        first = unit.stages[0][0].prefix
        assert all(call.prefix[: len(first)] == first for call in unit.calls)
        assert len(first) == len(shortest)
        blocks = {block for call in unit.calls for block in call.prefix}
        assert not blocks & seen
        seen |= blocks


def test_calls_of_one_stage_share_the_earlier_answers_that_they_quote():
    unit = next(unit for unit in paper_workload(ONLY[Kind.TREE]) if sum(c.prompt_tokens for c in unit.calls) > 3000)
    first, _, third, _ = unit.stages
    assert len({call.prefix for call in third}) == 1
    assert len(third[0].prefix) > len(first[0].prefix)


@pytest.mark.parametrize("kind", [Kind.TREE, Kind.RESEARCH])
def test_prompts_after_the_first_stage_are_longer_by_what_they_quote(kind):
    for unit in paper_workload(ONLY[kind]):
        first = max(call.prompt_tokens for call in unit.stages[0])
        assert all(call.prompt_tokens >= first - 1 for stage in unit.stages[1:] for call in stage)


@pytest.mark.parametrize("kind", Kind)
def test_prefixes_fit_into_prompts_and_answers_under_their_cap(kind):
    for unit in paper_workload(ONLY[kind]):
        for call in unit.calls:
            assert call.prompt_tokens >= 1
            assert len(call.prefix) * BLOCK_TOKENS <= call.prompt_tokens
            assert 1 <= call.output_tokens <= call.max_tokens


def test_prefixes_are_blocks_of_the_engines_size():
    small, large = (paper_workload(replace(ONLY[Kind.RESEARCH], block_tokens=tokens)) for tokens in (16, 128))
    for a, b in zip((c for unit in small for c in unit.calls), (c for unit in large for c in unit.calls), strict=True):
        assert a.prompt_tokens == b.prompt_tokens
        assert len(b.prefix) * 128 <= b.prompt_tokens
        assert len(b.prefix) == pytest.approx(len(a.prefix) / 8, abs=1.5)


def test_an_answer_ends_at_its_cap():
    units = paper_workload(replace(ONLY[Kind.CHAT], max_tokens={Kind.CHAT: 100}))
    answers = [unit.calls[0].output_tokens for unit in units]
    assert max(answers) == 100
    assert {unit.calls[0].max_tokens for unit in units} == {100}


def test_the_classes_are_the_papers_slos():
    chat, tool, agent = paper_classes().values()
    assert (chat.objectives.ttft_s, chat.objectives.tbt_s) == (2.0, 0.1)
    assert tool.deadline_s() == 20.0
    assert [agent.deadline_s(stage) for stage in range(3)] == [20.0, 40.0, 60.0]
    assert [slo.pattern for slo in (chat, tool, agent)] == [Pattern.LATENCY, Pattern.DEADLINE, Pattern.COLLECTIVE]
    assert set(SLO_CLASS.values()) == set(paper_classes())


def test_classes_can_be_hard_and_looser():
    classes = paper_classes(decay=inf, slo_scale=2.0)
    assert all(slo.gain.hard for slo in classes.values())
    assert classes["tool"].deadline_s() == 40.0


def gaps(arrivals, count=20_000, rate_per_s=4.0, seed=1):
    return list(islice(arrivals.gaps(Random(seed), rate_per_s), count))


@pytest.mark.parametrize(
    ("arrivals", "cv"), [(Poisson(), 1.0), (Bursts(1.0), 1.0), (Bursts(3.0), 3.0), (Bursts(0.2), 0.2)]
)
def test_gaps_have_the_mean_of_the_rate_and_the_variation_that_was_asked_for(arrivals, cv):
    drawn = gaps(arrivals)
    assert fmean(drawn) == pytest.approx(0.25, rel=0.08)
    assert pstdev(drawn) / fmean(drawn) == pytest.approx(cv, rel=0.08)


def test_arrivals_like_a_trace_keep_its_gaps_in_order_and_start_again_after_its_end():
    trace = (10.0, 11.0, 11.0, 14.0)  # gaps 1, 0, 3: a mean of 4/3
    drawn = gaps(TraceGaps(trace), count=7, rate_per_s=0.75)
    start = [1.0, 0.0, 3.0].index(pytest.approx(drawn[0]))
    assert drawn == pytest.approx(([1.0, 0.0, 3.0] * 4)[start : start + 7])
    assert gaps(TraceGaps(trace), count=3, rate_per_s=1.5) == pytest.approx([gap / 2.0 for gap in drawn[:3]])


def test_seeds_start_at_different_places_of_a_trace():
    trace = TraceGaps([float(i * i) for i in range(100)])
    assert len({gaps(trace, count=1, seed=seed)[0] for seed in range(20)}) > 10


@pytest.mark.parametrize("at_s", [(), (1.0,), (2.0, 2.0), (1.0, 3.0, 2.0)])
def test_arrivals_like_a_trace_need_different_times_in_order(at_s):
    with pytest.raises(ValueError, match="two different times, in order"):
        TraceGaps(at_s)


def test_a_rate_a_mix_or_a_variation_of_nothing_is_refused():
    with pytest.raises(ValueError, match="rate must be above 0"):
        replace(SPEC, rate_per_s=0.0)
    with pytest.raises(ValueError, match="no kind"):
        replace(SPEC, mix={Kind.CHAT: 0})
    with pytest.raises(ValueError, match="above 0"):
        Bursts(0.0)


def test_bursts_have_busier_seconds_than_a_poisson_process():
    def busiest(arrivals):
        times = accumulate(gaps(arrivals, count=2000))
        return max(Counter(int(at_s) for at_s in times).values())

    assert busiest(Bursts(4.0)) > 2 * busiest(Poisson())


def test_times_between_arrivals_are_the_gaps():
    units = paper_workload(SPEC)
    expected = gaps(Poisson(), count=50, rate_per_s=SPEC.rate_per_s, seed=f"{SPEC.seed} when")
    assert [b.at_s - a.at_s for a, b in pairwise(units[:50])] == pytest.approx(expected[1:])
