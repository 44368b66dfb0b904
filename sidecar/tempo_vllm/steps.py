"""When to run the policy, and how long the engine's steps take."""

from collections.abc import Mapping
from math import inf
from typing import Any, Final, NamedTuple

from tempo_core.steptime import StepTime, observe, start_fit

EARLY_SHARE: Final = 0.05
"""Share of the time that passes ahead of their frame may take."""

_MOST_IN_FLIGHT: Final = 64


class StepLoad(NamedTuple):
    """What a step computed."""

    decoding: int
    """Sequences that decoded."""
    prefilled: int
    """Tokens of prompts (or of what a preempted request had to compute again)."""
    context: int
    """Tokens that were in the cache already, of all its sequences."""


class Pacer:
    """Says when the next policy pass is due: once a frame, or sooner where something changed and passes are cheap."""

    __slots__ = ("_changed", "_early_from_s", "_steps")

    def __init__(self) -> None:
        self._steps = 0
        self._changed = True
        self._early_from_s = -inf

    def changed(self) -> None:
        """A request arrived or finished: the plan at hand is not of this set of requests."""
        self._changed = True

    def due(self, now_s: float, frame_steps: int) -> bool:
        """Count one step; whether it should begin with a pass. `now_s` is of any steady clock."""
        self._steps += 1
        return self._steps >= frame_steps or (self._changed and now_s >= self._early_from_s)

    def passed(self, began_s: float, ended_s: float) -> None:
        """A pass ran. The next early one waits until this one is at most `EARLY_SHARE` of the time."""
        self._steps = 0
        self._changed = False
        self._early_from_s = began_s + (ended_s - began_s) / EARLY_SHARE


class StepMeter:
    """Learns how long steps take from when they were scheduled and when their tokens came back.

    In a pipelined engine a step is scheduled while the one before it runs. So its time counts from its own scheduling
    or from the end of the step before it, whichever is later.
    """

    __slots__ = ("_fit", "_in_flight", "_last_end_s")

    def __init__(self) -> None:
        self._fit = start_fit()
        self._in_flight: dict[int, tuple[object, float, StepLoad]] = {}
        self._last_end_s = -inf

    @property
    def model(self) -> StepTime:
        """What has been learned so far."""
        return self._fit.model

    def began(self, step: object, at_s: float, load: StepLoad) -> None:
        """A step whose scheduling began at `at_s`, of any steady clock. An empty one teaches nothing."""
        if not load.decoding and not load.prefilled:
            return
        if len(self._in_flight) >= _MOST_IN_FLIGHT:  # their ends never came
            self._in_flight.clear()
        # The step itself is kept too, so that no later one can have the same id.
        self._in_flight[id(step)] = (step, at_s, load)

    def ended(self, step: object, at_s: float) -> None:
        """Its tokens are back."""
        found = self._in_flight.pop(id(step), None)
        if found is not None:
            _, began_s, load = found
            self._fit = observe(self._fit, at_s - max(began_s, self._last_end_s), *load)
        self._last_end_s = at_s


def step_load(step: Any) -> StepLoad:
    """The load of a `vllm.v1.core.sched.output.SchedulerOutput`.

    Who is given one token, or one and its drafts, decodes. This runs each step, so it sums lists and loops over nothing
    as long as the batch.
    """
    drafted: Mapping[str, list[int]] = step.scheduled_spec_decode_tokens
    single = list(step.num_scheduled_tokens.values()).count(1)
    decoded = single + sum(1 + len(tokens) for tokens in drafted.values())
    context = sum(step.scheduled_cached_reqs.num_computed_tokens)
    context += sum(new.num_computed_tokens for new in step.scheduled_new_reqs)
    return StepLoad(single + len(drafted), step.total_num_scheduled_tokens - decoded, context)
