import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def virtual():
    """The module `support.virtual_engine`: loaded late, because vLLM takes ten seconds, and warns as it comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from support import virtual_engine

        return virtual_engine


@pytest.fixture
def heard(caplog, monkeypatch):
    """What was logged, although vLLM's logger keeps its records to itself once vLLM is loaded."""
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    return caplog


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def make(virtual, model, monkeypatch) -> Iterator[Callable[..., Any]]:
    """Makes virtual engines around `virtual.SCHEDULERS[kind]`; `pool` is a manifest file."""
    made = []

    def engine(kind: str = "tempo", *, pool: Path | None = None, **sizes: Any) -> Any:
        if pool is not None:
            monkeypatch.setenv("TEMPO_CONFIG_FILE", str(pool))
        depth = 2 if "async" in kind else 1
        scheduler = virtual.make_scheduler(virtual.SCHEDULERS[kind], model, pipelined=depth > 1, **sizes)
        made.append(scheduler)
        return virtual.VirtualEngine(scheduler, depth)

    yield engine
    for scheduler in made:
        scheduler.shutdown()
