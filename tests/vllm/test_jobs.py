from math import inf

import pytest

from support.fake_request import FakeRequest
from support.pools import POOL
from tempo_api.manifest import build_pool, load_manifests
from tempo_api.wire import Facts, encode_facts
from tempo_core.lengths import curve
from tempo_core.slo import Pattern
from tempo_core.snapshot import COLUMNS
from tempo_vllm.jobs import job_from, with_targets
from tempo_vllm.pools import STAND_IN

POOL_OF_TEST = build_pool(load_manifests(POOL))
GRID = (5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 89.0)


def job(pool=POOL_OF_TEST, **facts):
    request = FakeRequest(priority=3)
    request.sampling_params.extra_args = encode_facts(Facts(**facts))
    return job_from(request, pool)


def column(made, name):
    return made.row[COLUMNS.index(name)]


def test_a_request_without_metadata_is_of_the_default_class_and_counts_from_its_arrival_at_the_engine():
    made, bad = job()
    assert (made.slo.name, made.arrival_s, made.prompt_tokens, made.max_tokens, made.priority) == (
        "chat", 1000.0, 50, 100, 3,
    )  # fmt: skip
    assert not bad


def test_a_pooling_request_has_no_metadata_to_read():
    made, bad = job_from(FakeRequest(sampling_params=None), STAND_IN)
    assert (made.slo.name, bad) == ("default", [])


def test_every_fact_reaches_the_job():
    made, bad = job(
        slo_class="agent", arrival_s=900.0, deadline_s=990.0, lengths=GRID, program="p", program_arrival_s=880.0,
        banked_gain=7.0, latest_s=999.0, later_prompt_tokens=30.0, later_output_tokens=60.0, tools=1.0,
        tenant="t",
    )  # fmt: skip
    assert (made.slo.name, made.arrival_s, made.program, made.tenant) == ("agent", 900.0, "p", "t")
    named = ("due", "scored_from", "banked", "latest", "later_prompt", "later_output", "tools")
    assert [column(made, name) for name in named] == [990.0, 880.0, 7.0, 999.0, 30.0, 60.0, 1.0]
    assert made.row[len(COLUMNS) :] == pytest.approx(curve(GRID))
    assert not bad


def test_what_the_router_degraded_is_best_effort_whatever_its_class_says():
    made, bad = job(slo_class="agent", deadline_s=990.0, latest_s=999.0, degraded=1.0)
    assert (made.slo.name, made.slo.pattern) == ("agent", Pattern.BEST_EFFORT)
    assert [column(made, name) for name in ("due", "latest")] == [inf, inf]
    assert not bad


@pytest.mark.parametrize(("facts", "due"), [
    ({"slo_class": "tool"}, 1020.0),
    ({"slo_class": "tool", "arrival_s": 990.0}, 1010.0),
    ({"slo_class": "tool", "deadline_s": 1003.0}, 1003.0),
    ({"slo_class": "agent"}, 1020.0),
    ({"slo_class": "agent", "program_arrival_s": 950.0}, 970.0),
    ({"slo_class": "batch", "deadline_s": 1003.0}, inf),
    ({"slo_class": "chat", "deadline_s": 1003.0}, inf),
])  # fmt: skip
def test_the_deadline_is_the_callers_or_the_classs_own_where_its_pattern_has_one(facts, due):
    assert column(job(**facts)[0], "due") == due


def test_a_callers_targets_replace_the_classs_own_for_that_request_only():
    made, _ = job(ttft_s=5.0, tbt_s=0.3)
    assert (made.slo.objectives.ttft_s, made.slo.objectives.tbt_s) == (5.0, 0.3)
    assert (made.slo.name, made.slo.gain) == ("chat", POOL_OF_TEST.default.gain)
    made, _ = job(ttft_s=5.0)
    assert made.slo.objectives.tbt_s == POOL_OF_TEST.default.objectives.tbt_s
    assert job()[0].slo == POOL_OF_TEST.default


def test_the_same_targets_make_one_class_and_no_more_than_a_bounded_number_is_kept():
    chat = POOL_OF_TEST.default
    assert with_targets(chat, 5.0, None) is with_targets(chat, 5.0, None)
    for index in range(3000):
        with_targets(chat, 1.0 + index, None)
    assert with_targets.cache_info().currsize <= 1024


def test_a_target_of_zero_seconds_is_malformed():
    made, bad = job(ttft_s=0.0, tbt_s=0.2)
    assert (made.slo.objectives.ttft_s, made.slo.objectives.tbt_s, bad) == (2.0, 0.2, ["ttft_s"])


def test_an_unknown_class_is_named_and_the_default_stands_in():
    made, bad = job(slo_class="gone")
    assert (made.slo.name, bad) == ("chat", ["slo_class"])
