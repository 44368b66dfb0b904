"""The examples are manifests that Tempo itself can use, together and one by one."""

import pytest
import yaml

from support.chart import ROOT
from tempo_api.manifest import build_pool, load_manifests
from tempo_operator.manifests import Options, pool_objects

FOLDER = ROOT / "examples"
FILES = sorted(FOLDER.glob("*.yaml"))
POOLS = sorted(FOLDER.glob("pool-*.yaml"))
CLASSES = load_manifests((FOLDER / "classes.yaml").read_text())


def test_there_is_a_class_for_each_kind_of_traffic():
    assert [manifest.metadata.name for manifest in CLASSES] == ["chat", "tool", "agent", "batch"]


@pytest.mark.parametrize("path", POOLS, ids=lambda path: path.stem)
def test_a_pool_fits_the_example_classes_and_can_be_built(path):
    [pool] = load_manifests(path.read_text(), path.name)
    assert build_pool([pool, *CLASSES]).default_class == "chat"
    assert pool_objects(pool, CLASSES, Options(image="tempo"))


def test_the_whole_folder_can_be_applied_at_once():
    """No two files disagree about an object, so that applying them twice changes nothing."""
    seen = {}
    for path in FILES:
        for document in yaml.safe_load_all(path.read_text()):
            key = document["kind"], document["metadata"]["name"]
            assert seen.setdefault(key, document["spec"]) == document["spec"], (path.name, key)


def test_values_bring_the_same_classes_and_pools_as_the_manifests():
    values = yaml.safe_load((FOLDER / "values" / "pools.yaml").read_text())
    documents = [d for path in FILES for d in yaml.safe_load_all(path.read_text())]
    specs = {(d["kind"], d["metadata"]["name"]): d["spec"] for d in documents}
    for kind, section in (("SLOClass", "classes"), ("TempoPool", "pools")):
        for name, spec in values[section].items():
            assert spec == specs[kind, name]
