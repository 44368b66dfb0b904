import pytest

from tempo_operator.kinds import POD, POOL, SLO_CLASS, STATEFUL_SET
from tempo_operator.store import Store


@pytest.fixture
def store():
    return Store("pool")


def document(name, version, uid="u", pool=None, namespace="ns"):
    labels = {"pool": pool} if pool else {}
    metadata = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"metadata": {**metadata, "managedFields": [{"big": "thing"}]}}


def test_the_newest_version_counts_whichever_way_it_came(store):
    assert store.put(STATEFUL_SET, document("e", 12, pool="p"))
    assert not store.put(STATEFUL_SET, document("e", 9, pool="p"))
    assert store.parts(("ns", "p"))[STATEFUL_SET, "e"]["metadata"]["resourceVersion"] == "12"


def test_who_set_what_is_not_kept(store):
    store.put(POD, document("e-0", 1, pool="p"))
    assert "managedFields" not in store.parts(("ns", "p"))[POD, "e-0"]["metadata"]


def test_a_part_whose_label_is_changed_belongs_to_the_other_pool(store):
    store.put(POD, document("e-0", 1, pool="p"))
    store.put(POD, document("e-0", 2, pool="q"))
    assert not store.parts(("ns", "p"))
    assert store.parts(("ns", "q"))


def test_the_end_of_an_older_object_of_that_name_is_no_news(store):
    store.put(POD, document("e-0", 5, uid="new", pool="p"))
    store.remove(POD, document("e-0", 6, uid="old", pool="p"))
    assert store.parts(("ns", "p"))
    store.remove(POD, document("e-0", 7, uid="new", pool="p"))
    assert not store.parts(("ns", "p"))


def test_a_list_tells_what_is_new_and_what_is_gone(store):
    store.put(POD, document("gone", 1, pool="p"))
    store.put(POD, document("after the list", 30, pool="p"))
    changed = store.replace(POD, [document("new", 10, pool="p")], 20)
    assert {found["metadata"]["name"] for found in changed} == {"gone", "new"}
    assert {name for _, name in store.parts(("ns", "p"))} == {"new", "after the list"}


def test_a_pool_is_its_own_and_a_class_is_nobodys(store):
    assert store.pool_of(POOL, document("p", 1)) == ("ns", "p")
    assert store.pool_of(SLO_CLASS, document("chat", 1)) is None
    assert store.pool_of(POD, document("stranger", 1)) is None
