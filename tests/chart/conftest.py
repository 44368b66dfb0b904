"""A sidecar whose metrics can be read without running it."""

import numpy as np
import pytest

from support.chart import ROOT
from tempo_api.reload import Reloader
from tempo_sidecar.forest.model import ForestLengths
from tempo_sidecar.proxy import Sidecar


@pytest.fixture(scope="module")
def sidecar_registry():
    sidecar = Sidecar(
        "http://127.0.0.1:1", Reloader(ROOT / "examples" / "quickstart.yaml"), ForestLengths(np.random.default_rng(0))
    )
    sidecar.app()  # adds what is only known when it is scraped
    return sidecar._metrics.registry
