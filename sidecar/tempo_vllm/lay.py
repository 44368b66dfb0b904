"""Lay the plug-in where an engine finds it: a folder for its PYTHONPATH, with the packages that the scheduler imports.

    python -m tempo_vllm.lay FOLDER

The init container of an engine's pod runs this. Whatever else they import, vLLM's own image has (numpy, msgspec, yaml).
"""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

PACKAGES: Final = ("tempo_api", "tempo_core", "tempo_vllm")


def lay(folder: Path) -> None:
    """Copy the packages into `folder`; those of an earlier run are replaced.

    Raises:
        OSError: where that can't be written.

    """
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(package)
        target = folder / package
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(Path(spec.origin).parent, target, ignore=shutil.ignore_patterns("__pycache__"))


def main() -> None:
    """Lay them in the folder that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tempo_vllm.lay FOLDER")
    lay(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
