"""Keeps the sample across restarts, in one file. It holds numbers only: no text, and nothing that runs when read."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Final

from tempo_sidecar.forest.sample import Records, decode_records, encode_records

log = logging.getLogger(__name__)

_NAME: Final = "lengths.msgpack"
_LARGEST: Final = 16 << 20


def load(folder: Path) -> Records | None:
    """What was saved in `folder`, or None. Never raises: what can't be used is a warning."""
    path = folder / _NAME
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ValueError("it is larger than any that is written")
        return decode_records(data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("The length history in %s can't be used, and is begun anew: %s", path, error)
        return None


def save(folder: Path, records: Records) -> None:
    """Replace what was saved in `folder`, all at once or not at all. Never raises: failing is a warning."""
    path = folder / _NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=_NAME, delete=False) as file:
            try:
                file.write(encode_records(records))
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        log.warning("The length history can't be saved to %s: %s", path, error)
