"""The operator's rights: everything that it does, and nothing else."""

import pytest

from support.chart import NAMESPACE, of_kind, render
from support.rbac import bound, granted
from tempo_operator.kinds import CHILDREN, EVENT, LEASE, POD, POOL, SLO_CLASS

READ = {"get", "list", "watch"}
PER_NAMESPACE = {
    (POOL.group, "tempopools"): READ,
    (POOL.group, "tempopools/status"): {"patch"},
    # Owner references that block the owner's deletion ask for this.
    (POOL.group, "tempopools/finalizers"): {"update"},
    (POD.group, POD.plural): READ,
    (EVENT.group, EVENT.plural): {"create"},
    **{(kind.group, kind.plural): READ | {"create", "patch", "delete"} for kind in CHILDREN},
}
PER_CLUSTER = {
    (SLO_CLASS.group, "sloclasses"): READ,
    (SLO_CLASS.group, "sloclasses/status"): {"patch"},
}
FOR_ELECTION = {(LEASE.group, LEASE.plural): {"get", "create", "update"}}


ACCOUNT = {"kind": "ServiceAccount", "name": "tempo-operator", "namespace": NAMESPACE}


def test_by_default_the_operator_may_change_things_in_its_own_namespace_only():
    assert bound(render(), ACCOUNT) == {NAMESPACE: PER_NAMESPACE | FOR_ELECTION, None: PER_CLUSTER}


def test_in_listed_namespaces_it_has_its_rights_there_and_its_lease_at_home():
    assert bound(render({"watch": {"namespaces": ["a", "b"]}}), ACCOUNT) == {
        "a": PER_NAMESPACE,
        "b": PER_NAMESPACE,
        NAMESPACE: FOR_ELECTION,
        None: PER_CLUSTER,
    }


def test_only_who_watches_all_namespaces_has_rights_in_all():
    assert bound(render({"watch": {"namespaces": "all"}}), ACCOUNT) == {
        NAMESPACE: FOR_ELECTION,
        None: PER_CLUSTER | PER_NAMESPACE,
    }


@pytest.mark.parametrize("namespaces", [[], "all"], ids=["own", "all"])
def test_no_rule_has_a_wildcard_or_reads_secrets_or_grants_rights(namespaces):
    for rights in bound(render({"watch": {"namespaces": namespaces}}), ACCOUNT).values():
        for (group, resource), verbs in rights.items():
            assert "*" not in {group, resource, *verbs}
            assert resource.partition("/")[0] not in {"secrets", "roles", "rolebindings", "clusterroles"}


def test_the_lease_is_the_one_that_the_operator_runs_for():
    documents = render()
    [rule] = [r for d in of_kind(documents, "Role") for r in d["rules"] if "resourceNames" in r]
    [deployment] = of_kind(documents, "Deployment")
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [f"--lease-name={name}" for name in rule["resourceNames"]] == [a for a in args if "lease" in a]


def test_the_clusters_own_roles_are_extended_to_tempos_objects():
    roles = {
        label.removeprefix("rbac.authorization.k8s.io/aggregate-to-"): granted(role)
        for role in of_kind(render(), "ClusterRole")
        for label in role["metadata"]["labels"]
        if "aggregate-to" in label
    }
    assert roles["view"][POOL.group, "tempopools"] == READ
    assert roles["edit"][POOL.group, "tempopools/scale"] == {"update", "patch"}
    assert (SLO_CLASS.group, "sloclasses") not in roles["edit"]  # classes are the whole cluster's
    assert "create" in roles["admin"][SLO_CLASS.group, "sloclasses"]
    none = render({"rbac": {"aggregateRoles": False, "create": False}})
    assert [d["kind"] for d in none if "Role" in d["kind"]] == []
