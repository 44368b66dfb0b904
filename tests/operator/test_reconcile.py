"""What to do about a pool, with manifests small enough to read."""

import copy

import pytest

from support.k8s.samples import a_pool, chat_class
from tempo_operator.conditions import Problem, Reason
from tempo_operator.drift import content
from tempo_operator.kinds import CHILDREN, STATEFUL_SET, kind_of
from tempo_operator.reconcile import class_names, parse_class, plan


def build(pool, classes, *, replicas):
    """Stands in for the real manifests."""
    name = pool.metadata.name
    served = ",".join(manifest.metadata.name for manifest in classes)
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-config"}, "data": {"c": served}}
    count = pool.spec.replicas if replicas is None else replicas
    engines = {"name": f"{name}-engine"}
    yield {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": engines, "spec": {"replicas": count}}


def pool(**spec):
    document = a_pool("ns", **spec)
    document["metadata"]["uid"] = "u1"
    return document


def planned(document, classes=None, parts=None, odd=None):
    if classes is None:
        classes = {"chat": chat_class()}
    return plan(document, classes, parts or {}, build, odd or {})


def there(document, **changes):
    """What the cluster holds after everything was applied, with changes to the StatefulSet's spec."""
    parts = {}
    for child in copy.deepcopy(planned(document).create):
        if child["kind"] == "StatefulSet":
            child["spec"] |= changes
        parts[kind_of(child), child["metadata"]["name"]] = child
    return parts


def test_a_new_pool_is_created_with_itself_as_the_owner():
    todo = planned(pool())
    assert [child["kind"] for child in todo.create] == ["ConfigMap", "StatefulSet"]
    owner = todo.create[0]["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("TempoPool", "u1", True)
    assert todo.apply == todo.delete == []


def test_a_settled_pool_needs_nothing():
    todo = planned(pool(), parts=there(pool()))
    assert todo.create == todo.apply == todo.delete == []
    assert todo.problem is None


def test_drift_is_applied_and_named_and_a_new_spec_only_applied():
    todo = planned(pool(), parts=there(pool(), replicas=7))
    assert [child["kind"] for child in todo.apply] == ["StatefulSet"]
    assert todo.drifted == ["StatefulSet pool-engine"]
    todo = planned(pool(replicas=3), parts=there(pool()))
    assert [child["spec"]["replicas"] for child in todo.apply] == [3]
    assert todo.drifted == []


def test_what_the_api_stores_in_other_words_is_not_applied_for_ever():
    parts = there(pool(), replicas="1")
    key = (STATEFUL_SET, "pool-engine")
    assert planned(pool(), parts=parts).apply
    assert not planned(pool(), parts=parts, odd={key: content(parts[key])}).apply


def test_what_is_wanted_no_more_is_deleted_if_it_is_the_pools_own():
    parts = there(pool())
    own, foreign = (copy.deepcopy(parts[STATEFUL_SET, "pool-engine"]) for _ in range(2))
    foreign["metadata"]["ownerReferences"] = []
    parts |= {(CHILDREN[1], "pool-old"): own, (CHILDREN[1], "theirs"): foreign}
    assert planned(pool(), parts=parts).delete == [own]


def test_a_part_that_belongs_to_another_is_a_conflict():
    parts = there(pool())
    parts[STATEFUL_SET, "pool-engine"]["metadata"]["ownerReferences"] = []
    todo = planned(pool(), parts=parts)
    assert todo.problem.reason == Reason.NAME_CONFLICT
    assert todo.apply == []


@pytest.mark.parametrize(
    ("spec", "classes", "reason", "text"),
    [
        ({"classes": [{"name": "chat"}]}, {}, Reason.CLASS_NOT_FOUND, "'chat'"),
        ({}, {}, Reason.CLASS_NOT_FOUND, "create at least one"),
        ({"model": ""}, {"chat": chat_class()}, Reason.INVALID_SPEC, "spec.model"),
        ({"replcas": 2}, {"chat": chat_class()}, Reason.INVALID_SPEC, "did you mean replicas?"),
        ({"classes": [{"name": "x"}]}, {"x": chat_class("x", pattern="Deadline")}, Reason.INVALID_CLASS, "SLOClass x"),
    ],
)
def test_a_pool_that_cannot_be_understood_is_left_as_it_is(spec, classes, reason, text):
    todo = planned(pool(**spec), classes, parts=there(pool()))
    assert todo.problem.reason == reason
    assert text in todo.problem.message
    assert todo.create == todo.apply == todo.delete == []


def test_a_pool_of_all_classes_does_without_one_that_nobody_can_use():
    classes = {"chat": chat_class(), "odd": chat_class("odd", pattern="Deadline")}
    assert planned(pool(), classes).create[0]["data"] == {"c": "chat"}


def test_a_class_that_is_being_deleted_is_gone():
    leaving = chat_class()
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert planned(pool(classes=[{"name": "chat"}]), {"chat": leaving}).problem.reason == Reason.CLASS_NOT_FOUND


@pytest.mark.parametrize(("now", "wanted"), [(None, 2), (1, 2), (4, 4), (9, 6)])
def test_an_autoscaled_pool_keeps_the_number_that_it_finds_within_its_limits(now, wanted):
    document = pool(replicas=None, autoscaling={"minReplicas": 2, "maxReplicas": 6})
    parts = {} if now is None else there(document, replicas=now)
    todo = planned(document, parts=parts)
    changed = [child["spec"]["replicas"] for child in (*todo.create, *todo.apply) if child["kind"] == "StatefulSet"]
    assert changed == ([] if now == wanted else [wanted])


def test_classes_are_parsed_or_explained():
    assert parse_class(chat_class()).metadata.name == "chat"
    assert isinstance(parse_class(chat_class(pattern="Fast")), Problem)
    assert class_names(pool()) is None
    assert class_names(pool(classes=[{"name": "a"}])) == {"a"}
