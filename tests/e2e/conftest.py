from pathlib import Path

import pytest
import yaml

from support.pool import running_pool
from support.serving import QUICKSTART
from support.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def tiny_pool(tmp_path_factory):
    """The quickstart's pool with a tiny random model; one for all tests of a file, because it takes a minute."""
    folder: Path = tmp_path_factory.mktemp("pool")
    documents = list(yaml.safe_load_all(QUICKSTART.read_text()))
    spec = documents[-1]["spec"]
    spec["model"] = str(make_tiny_model(folder / "model"))
    spec["servedModelName"] = "tiny"
    spec["engine"]["args"] = ["--load-format=dummy", "--max-model-len=4096", "--max-num-seqs=8"]
    spec["router"] = {"maxBodyBytes": 100_000}
    manifests = folder / "pool.yaml"
    manifests.write_text(yaml.safe_dump_all(documents))
    with running_pool(manifests, folder) as pool:
        yield pool
