"""A whole pool for end-to-end tests: `tempo up` as its users run it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from support.processes import Marked, marked, wait_until

START_S = 300.0
"""An engine takes 20 to 60 s on an idle machine with two cores; this is for one that isn't idle."""


class RunningPool:
    """A `tempo up` process that is ready, and what its ready file says."""

    def __init__(self, process: subprocess.Popen, facts: dict[str, Any], output: Path, mark: Marked) -> None:
        self.process, self.output, self.mark = process, output, mark
        self.url: str = facts["url"]
        self.model: str = facts["model"]
        self.parts: dict[str, dict[str, Any]] = facts["parts"]

    def told(self) -> str:
        """What `tempo up` has printed so far."""
        return self.output.read_text(encoding="utf-8")

    def process_of(self, part: str) -> psutil.Process:
        """The part itself, not its guard; of the first start."""
        return psutil.Process(self.parts[part]["pid"]).children()[0]


@contextmanager
def running_pool(manifests: Path, folder: Path, *options: str) -> Iterator[RunningPool]:
    """`tempo up` with `manifests`, its files in `folder`; whatever is left of it in the end is killed."""
    ready_file, output = folder / "ready.json", folder / "up.log"
    argv = [sys.executable, "-m", "tempo_api.cli", "up", "-f", manifests, "--port", 0, *options]
    argv += ["--log-dir", folder / "logs", "--ready-file", ready_file]
    with marked() as mark, output.open("wb") as told:
        process = subprocess.Popen(
            [str(word) for word in argv], stdout=told, stderr=subprocess.STDOUT, env=os.environ | mark.env
        )
        try:
            wait_until(lambda: ready_file.exists() or process.poll() is not None, START_S)
            assert ready_file.exists(), output.read_text()
            yield RunningPool(process, json.loads(ready_file.read_text()), output, mark)
        finally:
            process.kill()
            process.wait()
