import pytest
from prometheus_client import CollectorRegistry, Counter

from tempo_api.children import Children


@pytest.fixture
def registry():
    return CollectorRegistry()


def test_a_child_is_found_by_its_one_label_and_is_the_metric_s_own(registry):
    counter = Counter("fake_things", "Things", ["kind"], registry=registry)
    things = Children(counter)
    things["cup"].inc(2)
    counter.labels("cup").inc()
    assert registry.get_sample_value("fake_things_total", {"kind": "cup"}) == 3
    assert things["cup"] is counter.labels("cup")


def test_several_labels_are_given_in_their_order(registry):
    things = Children(Counter("fake_things", "Things", ["kind", "size"], registry=registry))
    things["cup", "xl"].inc()
    assert registry.get_sample_value("fake_things_total", {"kind": "cup", "size": "xl"}) == 1


def test_nothing_is_exported_before_it_was_asked_for(registry):
    Children(Counter("fake_things", "Things", ["kind"], registry=registry))
    assert registry.get_sample_value("fake_things_total", {"kind": "cup"}) is None
