import pytest

from tempo_operator.measure import Counts, Meter, Reading, parse_metrics, settled

PAGE = """
# HELP tempo_router_requests_total Requests by the way they ended.
# TYPE tempo_router_requests_total counter
tempo_router_requests_total{outcome="completed",slo_class="chat"} 80.0
tempo_router_requests_total{outcome="saturated",slo_class="chat"} 20.0
tempo_router_requests_total{outcome="bad_json",slo_class=""} 5.0
tempo_router_requests_total{outcome="client_closed",slo_class="chat"} 7.0
tempo_router_attained_total{slo_class="chat"} 60.0
tempo_router_gain_total{slo_class="chat"} 500.0
tempo_router_queue_seconds_bucket{le="0.01",slo_class="chat"} 3.0
tempo_router_held{slo_class="chat"} 2.0
tempo_router_held{slo_class="tool"} 1.0
tempo_engine_waiting 4.0
tempo_engine_scheduler_active 0.0
"""


def reading(requests, attained, gain=0.0):
    return Reading(classes={"chat": Counts(requests, attained, gain)})


def test_a_page_is_read_for_what_says_something_of_the_pool():
    found = parse_metrics(PAGE)
    assert found.classes == {"chat": Counts(requests=100, attained=60, gain=500, dropped=20)}
    assert (found.held, found.waiting) == ({"chat": 2, "tool": 1}, 4)
    assert found.fallback


def test_what_is_no_metrics_page_is_an_error():
    with pytest.raises(ValueError, match="float"):
        parse_metrics('tempo_engine_waiting{ "unclosed\n')


def test_a_pod_counts_from_when_it_was_first_seen():
    meter = Meter()
    assert meter.note({"r0": reading(1000, 1000)}, 0.0).total == Counts()
    figures = meter.note({"r0": reading(1010, 1005, 20)}, 15.0)
    assert figures.total == Counts(10, 5, 20)
    assert figures.seconds == 15.0


def test_a_restarted_pod_loses_nothing():
    meter = Meter()
    meter.note({"r0": reading(1000, 900)}, 0.0)
    assert meter.note({"r0": reading(8, 6)}, 15.0).total == Counts(8, 6)


def test_pods_add_up_and_the_window_slides():
    meter = Meter()
    meter.note({"r0": reading(0, 0), "r1": reading(0, 0)}, 0.0)
    assert meter.note({"r0": reading(10, 10), "r1": reading(10, 0)}, 10.0).total == Counts(20, 10)
    assert meter.note({"r0": reading(10, 10)}, 131.0).total == Counts()


def test_what_waits_adds_up_over_routers_and_engines_and_is_that_of_now():
    meter = Meter()
    meter.note({"r0": Reading(held={"chat": 9})}, 0.0)
    now = {"r0": Reading(held={"chat": 2}), "r1": Reading(held={"chat": 1, "tool": 4}), "e0": Reading(waiting=5)}
    figures = meter.note(now, 15.0)
    assert dict(figures.held) == {"chat": 3, "tool": 4}
    assert figures.waiting == 12


def test_a_meter_knows_how_long_nobody_has_answered():
    meter = Meter()
    assert meter.silent_s(10.0) == float("inf")
    meter.note({"r0": reading(0, 0)}, 10.0)
    assert meter.silent_s(25.0) == 15.0


def test_figures_settle():
    assert settled(123.456) == 120.0
    assert settled(0.00123456) == 0.0012
    assert settled(0.0) == 0.0
