"""A release from its installation to its end, by a real Helm, on the test API server or any cluster that there is."""

import asyncio
import os
import shutil
from dataclasses import replace

import helm_python
import pytest
import pytest_asyncio
import yaml

from support.chart import CHART
from support.helm_cluster import KINDS as ROLES
from support.helm_cluster import HelmsKubernetes
from support.k8s.api import CRD
from support.k8s.cluster import a_cluster, an_operator, emulated
from support.k8s.proxy import proxying
from support.k8s.samples import a_pool, chat_class
from support.processes import until
from support.rbac import bound, permitted
from tempo_operator.kinds import DEPLOYMENT, EVENT, POOL, SLO_CLASS, Kind

ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
TOKEN = Kind("v1", "TokenRequest", "serviceaccounts/tempo-operator/token")
POOLS = {"classes": {"chart-chat": {"pattern": "BestEffort", "default": True}}, "pools": {"small": {"model": "m"}}}


class Helm:
    """Helm's commands for one release, called tempo, which only this process knows of."""

    def __init__(self, config):
        self._config = config
        self._installed = False

    async def upgrade_or_install(self, values=None, chart=CHART):
        command = self._config.upgrade if self._installed else self._config.install
        self._installed = True
        return await asyncio.to_thread(command, str(chart), "tempo", values or {}, timeout=60)

    async def uninstall(self):
        return (await asyncio.to_thread(self._config.uninstall, "tempo", timeout=60))["info"]


@pytest_asyncio.fixture
async def cluster(tmp_path):
    if os.environ.keys() & {"TEMPO_TEST_KUBECONFIG", "KUBEBUILDER_ASSETS"}:
        async with a_cluster(tmp_path) as found:
            yield found
    else:
        async with emulated(HelmsKubernetes(), tmp_path) as found:
            yield found


@pytest_asyncio.fixture
async def namespace(cluster):
    """One in which Helm may take over the CRDs that the cluster has, as their first owner."""
    name = await cluster.namespace()
    owner = {"meta.helm.sh/release-name": "tempo", "meta.helm.sh/release-namespace": name}
    mark = {"metadata": {"annotations": owner, "labels": {"app.kubernetes.io/managed-by": "Helm"}}}
    for crd in await crds(cluster):
        await cluster.client.patch(CRD, None, crd["metadata"]["name"], mark)
    yield name
    await cluster.client.delete(SLO_CLASS, None, "chart-chat")


@pytest.fixture
def helm(cluster, namespace):
    with helm_python.Config(kubeconfig_path=cluster.kubeconfig, namespace=namespace, storage_driver="memory") as config:
        yield Helm(config)


async def crds(cluster):
    return [
        crd for crd in await cluster.client.list(CRD, None) if crd["metadata"]["name"].endswith("serving.tempo.dev")
    ]


async def test_a_release_is_installed_upgraded_and_removed_and_leaves_crds_and_pools(cluster, namespace, helm):
    first = await helm.upgrade_or_install()
    assert (first["revision"], first["status"]) == (1, "deployed")
    assert len(await crds(cluster)) == 2
    deployment = await cluster.client.get(DEPLOYMENT, namespace, "tempo-operator")
    assert deployment["spec"]["replicas"] == 1

    second = await helm.upgrade_or_install({"replicas": 2, **POOLS})
    assert (second["revision"], second["status"]) == (2, "deployed")
    deployment = await cluster.client.get(DEPLOYMENT, namespace, "tempo-operator")
    assert deployment["spec"]["replicas"] == 2

    said = await helm.uninstall()
    assert all(kept in said for kept in ("tempopools.serving.tempo.dev", "sloclasses.serving.tempo.dev", "small"))
    assert await cluster.client.get(DEPLOYMENT, namespace, "tempo-operator") is None
    assert await cluster.client.get(ACCOUNT, namespace, "tempo-operator") is None
    assert len(await crds(cluster)) == 2
    assert await cluster.client.get(POOL, namespace, "small")
    assert await cluster.client.get(SLO_CLASS, None, "chart-chat")


async def test_an_upgrade_brings_new_crds(cluster, namespace, helm, tmp_path):
    cluster.needs_fake("give up the CRDs that it was set up with")
    older = shutil.copytree(CHART, tmp_path / "tempo")
    crd = older / "files" / "crds" / "tempopools.yaml"
    crd.write_text(crd.read_text().replace("shortNames: [tp]", "shortNames: [old]"))
    await helm.upgrade_or_install(chart=older)
    assert await short_names(cluster) == ["old"]
    await helm.upgrade_or_install()
    assert await short_names(cluster) == ["tp"]


async def short_names(cluster):
    return (await cluster.client.get(CRD, None, "tempopools.serving.tempo.dev"))["spec"]["names"]["shortNames"]


@pytest_asyncio.fixture
async def as_account(cluster, namespace, helm, tmp_path):
    """The cluster as the chart's own account sees it, by a token; a proxy stands in for an API server without RBAC."""
    await helm.upgrade_or_install()
    restricted = tmp_path / "account"
    if cluster.fake is None:
        token = (await cluster.client.create(TOKEN, {"metadata": {"namespace": namespace}, "spec": {}}))["status"]
        kubeconfig = yaml.safe_load(cluster.kubeconfig.read_text())
        kubeconfig["users"] = [{"name": u["name"], "user": {"token": token["token"]}} for u in kubeconfig["users"]]
        restricted.write_text(yaml.safe_dump(kubeconfig))
        yield replace(cluster, kubeconfig=restricted)
        return
    lists = [await cluster.client.list(kind, None) for kind in ROLES]
    named = [{"kind": kind.name, **d} for kind, found in zip(ROLES, lists, strict=True) for d in found]
    theirs = [d for d in named if "aggregate" not in str(d["metadata"]["labels"])]
    account = {"kind": "ServiceAccount", "name": "tempo-operator", "namespace": namespace}
    rights = bound(theirs, account)
    async with proxying(cluster.info, restricted) as proxy:
        proxy.guard = lambda method, path, watch: permitted(rights, method, path, watch=watch)
        yield replace(cluster, kubeconfig=restricted)


async def test_the_operator_can_do_its_work_with_the_charts_own_account(cluster, namespace, as_account, tmp_path):
    async with an_operator(as_account, namespace, tmp_path, "--resync-seconds", "2") as operator:
        await cluster.client.create(SLO_CLASS, chat_class("chart-chat"))
        await cluster.client.create(POOL, a_pool(namespace, "small", classes=[{"name": "chart-chat"}]))
        await until(lambda: has_conditions(cluster, namespace, "small"))
        uid = (await cluster.client.get(DEPLOYMENT, namespace, "small-router"))["metadata"]["uid"]
        await cluster.client.delete(DEPLOYMENT, namespace, "small-router")

        async def back():
            found = await cluster.client.get(DEPLOYMENT, namespace, "small-router")
            return found is not None and found["metadata"]["uid"] != uid

        await until(back)
        await cluster.client.patch(POOL, namespace, "small", {"spec": {"classes": [{"name": "missing"}]}})
        await until(lambda: cluster.client.list(EVENT, namespace))
        assert (await cluster.client.get(SLO_CLASS, None, "chart-chat"))["status"]["conditions"]
        assert await operator.end() == 0
    assert "forbidden" not in operator.log.read_text().lower()


async def has_conditions(cluster, namespace, name):
    return ((await cluster.client.get(POOL, namespace, name)).get("status") or {}).get("conditions")
