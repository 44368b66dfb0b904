"""The chart installs and upgrades the very CRDs that stand in crds/, and never takes them away."""

import pytest
import yaml

from support.chart import CHART, ROOT, of_kind, render

CRDS = sorted((ROOT / "crds").glob("*.yaml"))


def test_the_charts_copies_are_those_of_the_repository():
    copies = {path.name: path.read_text() for path in (CHART / "files" / "crds").iterdir()}
    assert copies == {path.name: path.read_text() for path in CRDS}, "run: cp crds/*.yaml charts/tempo/files/crds/"


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.stem)
def test_a_crd_is_rendered_as_it_is_and_kept_at_uninstall(path):
    wanted = yaml.safe_load(path.read_text())
    [crd] = [
        c for c in of_kind(render(), "CustomResourceDefinition") if c["metadata"]["name"] == wanted["metadata"]["name"]
    ]
    assert crd["spec"] == wanted["spec"]
    assert crd["metadata"]["annotations"] == {
        **wanted["metadata"].get("annotations", {}),
        "helm.sh/resource-policy": "keep",
    }


@pytest.mark.parametrize("upgrade", [False, True], ids=["install", "upgrade"])
def test_crds_come_with_installs_and_upgrades_unless_someone_else_brings_them(upgrade):
    assert len(of_kind(render(upgrade=upgrade), "CustomResourceDefinition")) == len(CRDS)
    assert of_kind(render({"crds": {"install": False}}, upgrade=upgrade), "CustomResourceDefinition") == []
