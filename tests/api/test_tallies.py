import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from tempo_api.tallies import Counters, Histograms

BOUNDS = (0.01, 0.5, 1, 2.5)


@pytest.fixture
def registry():
    return CollectorRegistry()


def test_labels_are_given_in_their_order(registry):
    things = Counters("fake_things", "Things", ["kind", "size"], registry)
    things.inc("cup", "xl")
    things.inc("cup", "xl", by=1.5)
    assert registry.get_sample_value("fake_things_total", {"kind": "cup", "size": "xl"}) == 2.5


def test_nothing_is_exported_before_it_was_counted(registry):
    Counters("fake_things", "Things", ["kind"], registry)
    Histograms("fake_seconds", "Times", "kind", BOUNDS, registry)
    assert not [line for line in exported(registry) if not line.startswith("#")]


def test_a_counter_without_labels_is_there_from_the_start(registry):
    Counters("fake_things", "Things", [], registry)
    assert registry.get_sample_value("fake_things_total") == 0.0


def exported(registry):
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.0, 10.0) | st.sampled_from(BOUNDS))))
def test_what_is_exported_is_what_prometheus_client_s_own_would_export(seen):
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    counter = Counter("fake_things", "Things", ["kind"], registry=theirs)
    histogram = Histogram("fake_seconds", "Times", ["kind"], buckets=BOUNDS, registry=theirs)
    counters = Counters("fake_things", "Things", ["kind"], ours)
    histograms = Histograms("fake_seconds", "Times", "kind", BOUNDS, ours)
    for kind, amount in seen:
        counter.labels(kind).inc(amount)
        histogram.labels(kind).observe(amount)
        counters.inc(kind, by=amount)
        histograms.observe(kind, amount)
    assert exported(ours) == exported(theirs)
