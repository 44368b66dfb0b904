"""What `tempo up` shows: a line with a spinner for each part on a terminal, plain lines anywhere else."""

import time

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Display:
    """Progress of the steps of starting, and lines of text, which never break each other."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = console.is_terminal
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._rows: dict[str, TaskID] = {}
        self._since: dict[str, float] = {}

    def begin(self, step: str) -> None:
        """Show that `step` is under way."""
        self._since[step] = time.monotonic()
        if self._live:
            self._rows[step] = self._progress.add_task(step, total=1)
            self._progress.start()
        else:
            self.say(f"{step} ...")

    def finish(self, step: str) -> None:
        """Show that `step` is done."""
        if self._live:
            self._progress.update(self._rows[step], completed=1)
        else:
            self.say(f"{step}: ready after {time.monotonic() - self._since[step]:.0f} s")

    def settle(self) -> None:
        """End the live part: what comes now are lines."""
        if self._live:
            self._progress.stop()
            self._live = False

    def say(self, text: str) -> None:
        """One line, as it is: no markup, no wrapping, so that it can be copied and searched for."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
