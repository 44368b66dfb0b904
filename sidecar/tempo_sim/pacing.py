"""When the policy runs: once a frame, or sooner where something changed and passes are cheap, as in the plug-in."""

from math import inf
from typing import Final

EARLY_SHARE: Final = 0.05
"""Share of the time that passes ahead of their frame may take."""


def pass_s(requests: int) -> float:
    """What a pass over so many requests is taken to last: 1 ms at 256, 5 ms at 2,048.

    The same for every policy. It only spaces early passes; engines hide it behind the step before (async scheduling).
    """
    return 0.43e-3 + 2.23e-6 * requests


class Pacer:
    """Counts steps. `changed`: a request arrived, ended or lost its place, so that the plan at hand is of another set.

    Attributes:
        changed: whether anything did since the last pass.
        early_from_s: no early pass before this, of the simulated clock.
        steps: since the last pass.

    """

    __slots__ = ("_frame_steps", "changed", "early_from_s", "steps")

    def __init__(self, frame_steps: int) -> None:
        self._frame_steps = frame_steps
        self.changed = True
        self.early_from_s = -inf
        self.steps = 0

    def due(self, now_s: float) -> bool:
        """Count one step; whether it should begin with a pass."""
        self.steps += 1
        return self.steps >= self._frame_steps or (self.changed and now_s >= self.early_from_s)

    def passed(self, now_s: float, requests: int) -> None:
        """A pass over this many requests began."""
        self.steps = 0
        self.changed = False
        self.early_from_s = now_s + pass_s(requests) / EARLY_SHARE

    @property
    def free_steps(self) -> int:
        """How many steps can follow before the frame ends, if nothing changes."""
        return max(self._frame_steps - self.steps - 1, 0)

    @property
    def next_early_s(self) -> float:
        """A pass is due at the first step from then on, if nothing else changes; inf if nothing has changed."""
        return self.early_from_s if self.changed else inf
