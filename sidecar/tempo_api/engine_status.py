"""What a scheduler in an engine says of itself: a small file that the sidecar reads. Standard library only."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

STATUS_ENV: Final = "TEMPO_STATUS_FILE"


def status_file() -> Path | None:
    """Where the environment wants the status; None: nowhere."""
    name = os.environ.get(STATUS_ENV)
    return Path(name) if name else None


def write_status(path: Path, status: Mapping[str, Any]) -> None:
    """Replace the file whole, so that no reader sees half of it.

    Raises:
        OSError: where the folder can't be written.

    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps({**status, "written_s": time.time()}), encoding="utf-8")
    draft.replace(path)
