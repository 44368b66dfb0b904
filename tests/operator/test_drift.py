import pytest

from support.k8s.defaults import defaulted
from support.pool_objects import POOLS, made
from tempo_operator.drift import Patience, content, covers, digest_of, stamped
from tempo_operator.kinds import kind_of


def deployment(**spec):
    return {"kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


def test_what_the_api_added_is_no_drift():
    wanted = {"containers": [{"name": "a", "image": "x"}], "replicas": 2}
    there = {
        "containers": [
            {"name": "injected", "image": "y"},
            {"name": "a", "image": "x", "imagePullPolicy": "Always"},
        ],
        "replicas": 2,
        "strategy": {"type": "RollingUpdate"},
    }
    assert covers(there, wanted)


ODD = {"everything that pods have"}  # a CPU in other words and an empty value: those are remembered as they are kept


@pytest.mark.parametrize("case", [c for c in POOLS if c.about not in ODD], ids=lambda case: case.about)
def test_nothing_that_a_pool_is_made_of_drifts_by_being_stored(case):
    for wanted in made(case.document["metadata"]["name"], **case.document["spec"]):
        there = defaulted(kind_of(wanted).plural, wanted)
        assert covers(there, wanted), wanted["kind"]


def test_a_changed_or_missing_field_is_drift():
    assert not covers({"replicas": 3}, {"replicas": 2})
    assert not covers({}, {"replicas": 2})
    assert not covers({"containers": [{"name": "b"}]}, {"containers": [{"name": "a"}]})
    assert not covers({"args": ["--a", "--b"]}, {"args": ["--a"]})
    assert not covers({"args": None}, {"args": ["--a"]})


def test_empty_and_absent_are_the_same():
    assert covers({}, {"tolerations": [], "nodeSelector": {}})


def test_mounts_of_one_volume_are_told_apart_by_their_paths():
    wanted = [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]
    assert covers(list(reversed(wanted)), wanted)
    assert not covers(wanted[:1], wanted)


def test_the_digest_tells_that_less_is_wanted_than_before():
    before, after = stamped(deployment(replicas=2, paused=True)), stamped(deployment(replicas=2))
    assert digest_of(before) != digest_of(after)
    assert not covers(before, after)


def test_where_others_scale_the_digest_does_not_change_with_the_number():
    two, three = (stamped(deployment(replicas=n), scaled_by_others=True) for n in (2, 3))
    assert digest_of(two) == digest_of(three)


def test_content_changes_with_what_somebody_set_and_with_nothing_else():
    there = deployment(replicas=2) | {"status": {"readyReplicas": 0}}
    later = deployment(replicas=2) | {"status": {"readyReplicas": 2}}
    later["metadata"] = {"name": "d", "resourceVersion": "7", "generation": 3}
    assert content(there) == content(later)
    assert content(there) != content(deployment(replicas=3))


def test_who_keeps_changing_a_thing_is_answered_at_once_at_first_and_then_every_ten_seconds():
    patience = Patience()
    assert [patience.wait_s("pool", float(second)) for second in range(6)] == [0.0] * 6
    assert patience.wait_s("pool", 6.0) == 9.0
    assert patience.wait_s("pool", 15.0) == 0.0
    assert patience.wait_s("pool", 16.0) > 0.0
    assert patience.wait_s("another", 16.0) == 0.0
    assert patience.wait_s("pool", 200.0) == 0.0
