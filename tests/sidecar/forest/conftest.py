import pytest

from support.lengths import sampled, workload
from tempo_sidecar.forest.grow import grow


@pytest.fixture(scope="session")
def records():
    """Eight hundred completions, some cut by a cap of 400 tokens."""
    return sampled(workload(800, seed=1, max_tokens=400)).records()


@pytest.fixture(scope="session")
def grown(records):
    """What a real training makes of them."""
    return grow(records)
