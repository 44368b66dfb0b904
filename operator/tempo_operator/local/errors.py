"""What `tempo up` reports."""

from pathlib import Path


class UpError(Exception):
    """The pool can't be started; the text is one line: what is wrong, and what to do about it.

    Args:
        problem: the text.
        log: the end of this file tells more.

    """

    def __init__(self, problem: str, log: Path | None = None) -> None:
        super().__init__(problem)
        self.log = log


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file; nothing of one that isn't there."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - lines * 400))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
