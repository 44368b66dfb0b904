"""Service gain: what a request earned, accrued as its tokens appear.

Soft gain is that of arXiv 2504.20068 version 1, hard gain (`decay: hard`) the token goodput of its version 3. One
ledger follows one response; a program's ledger adds its calls up. Times are absolute, in seconds, of any one clock.
"""

from math import inf, nan
from typing import NamedTuple

from tempo_core.slo import GainRule, Pattern, SLOClass


def fade(target_s: float, measured_s: float, decay: float) -> float:
    """`min(1, target / measured) ** decay`: the share of its value that something late keeps.

    Both in seconds. A hard rule (`decay` infinite) keeps nothing of what is late.
    """
    if measured_s <= target_s:
        return 1.0
    if decay == inf:
        return 0.0
    return float((target_s / measured_s) ** decay)


def token_value(rule: GainRule, prompt_tokens: float, output_tokens: float) -> float:
    """What these tokens are worth on time, weighted by class."""
    return rule.weight * (rule.input_token * prompt_tokens + rule.output_token * output_tokens)


class Outcome(NamedTuple):
    """How a response, or a whole program, ended."""

    slo_class: str
    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    """Time to first token; nan if there was none."""
    tbt_s: float
    """Mean time between tokens; nan with fewer than two."""
    ttlt_s: float
    gain: float
    attained: bool


class RequestLedger:
    """Follows one response: call `tokens` as they appear, then `finish` once.

    A collective request earns nothing by itself: its `Outcome.gain` is 0, and its tokens belong into the
    `ProgramLedger`. Its `attained` tells whether it met its stage's cumulative sub-deadline.

    Args:
        slo: the class that the request is served as.
        arrival_s: when it arrived.
        deadline_s: an absolute deadline that replaces the class's own, for a caller who gave one.

    """

    __slots__ = (
        "_deadline_s",
        "_input_share",
        "_output_gain",
        "arrival_s",
        "first_s",
        "last_s",
        "output_tokens",
        "slo",
    )

    def __init__(self, slo: SLOClass, arrival_s: float, deadline_s: float | None = None) -> None:
        self.slo = slo
        self.arrival_s = arrival_s
        self.output_tokens = 0
        self.first_s = nan
        self.last_s = nan
        self._deadline_s = arrival_s + slo.deadline_s() if deadline_s is None else deadline_s
        self._input_share = 0.0
        self._output_gain = 0.0

    @property
    def ttft_s(self) -> float:
        """Time to first token in seconds, nan before it."""
        return self.first_s - self.arrival_s

    def tokens(self, now_s: float, count: int) -> None:
        """Account for `count` new output tokens that appeared at `now_s`."""
        if count <= 0:
            return
        if not self.output_tokens:
            self.first_s = now_s
            self._input_share = self._first_token_share(now_s)
        self.last_s = now_s
        before = self.output_tokens
        self.output_tokens += count
        if self.slo.pattern is Pattern.LATENCY:
            rule = self.slo.gain
            on_time = self._hard_count(now_s, before) if rule.hard else count * self._soft_share(now_s)
            self._output_gain += rule.weight * rule.output_token * on_time

    def finish(self, now_s: float, prompt_tokens: int) -> Outcome:
        """Close the books. `prompt_tokens` is asked for only now because a proxy learns it last."""
        ttlt_s = (self.last_s if self.output_tokens else now_s) - self.arrival_s
        tbt_s = (self.last_s - self.first_s) / (self.output_tokens - 1) if self.output_tokens > 1 else nan
        return Outcome(
            slo_class=self.slo.name,
            prompt_tokens=prompt_tokens,
            output_tokens=self.output_tokens,
            ttft_s=self.ttft_s,
            tbt_s=tbt_s,
            ttlt_s=ttlt_s,
            gain=self._gain(prompt_tokens, ttlt_s),
            attained=bool(self.output_tokens) and self._attained(tbt_s),
        )

    def _gain(self, prompt_tokens: int, ttlt_s: float) -> float:
        rule = self.slo.gain
        match self.slo.pattern:
            case Pattern.LATENCY:
                return rule.weight * rule.input_token * prompt_tokens * self._input_share + self._output_gain
            case Pattern.DEADLINE if self.output_tokens:
                share = fade(self._deadline_s - self.arrival_s, ttlt_s, rule.decay)
                return token_value(rule, prompt_tokens, self.output_tokens) * share
            case Pattern.BEST_EFFORT if self.output_tokens:
                return token_value(rule, prompt_tokens, self.output_tokens)
            case _:
                return 0.0

    def _attained(self, tbt_s: float) -> bool:
        objectives = self.slo.objectives
        if self.slo.pattern is Pattern.LATENCY:
            return self.ttft_s <= objectives.ttft_s and not tbt_s > objectives.tbt_s
        return self.last_s <= self._deadline_s

    def _first_token_share(self, now_s: float) -> float:
        rule = self.slo.gain
        if rule.hard:  # goodput counts a stream's output tokens only
            return 0.0
        return fade(self.slo.objectives.ttft_s, now_s - self.arrival_s, rule.decay)

    def _soft_share(self, now_s: float) -> float:
        """Credit of tokens that bring the response to O = `output_tokens`, against the O* that were due by now.

        An early first token banks no slack for later tokens: the pace counts from it, not from its target.
        """
        objectives = self.slo.objectives
        due = (now_s - self.arrival_s - min(self.ttft_s, objectives.ttft_s)) / objectives.tbt_s
        return fade(self.output_tokens, due, self.slo.gain.decay)

    def _hard_count(self, now_s: float, before: int) -> int:
        """How many of the new tokens came in time: token i, from 0, is due at TTFT + i * TBT after arrival."""
        objectives = self.slo.objectives
        late_s = now_s - self.arrival_s - objectives.ttft_s
        return sum(late_s <= index * objectives.tbt_s for index in range(before, self.output_tokens))


class ProgramLedger:
    """Follows one program of a collective class: all of its calls' tokens count when the last one ends.

    Args:
        slo: its collective class.
        arrival_s: when its first call arrived.
        deadline_s: an absolute deadline that its caller gave; it counts where it is later than the class's own.

    """

    __slots__ = ("_deadline_s", "arrival_s", "calls", "last_s", "output_tokens", "prompt_tokens", "slo", "stages")

    def __init__(self, slo: SLOClass, arrival_s: float, deadline_s: float | None = None) -> None:
        self.slo = slo
        self.arrival_s = arrival_s
        self.calls = 0
        self.stages = 0
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.last_s = nan
        self._deadline_s = deadline_s

    @property
    def deadline_s(self) -> float:
        """Absolute deadline of the whole program, given the stages that it had so far."""
        own_s = self.arrival_s + self.slo.deadline_s(max(self.stages - 1, 0))
        return own_s if self._deadline_s is None else max(own_s, self._deadline_s)

    @property
    def value(self) -> float:
        """Gain that the finished calls have at stake: it counts only if the program ends, and fades with its end."""
        return token_value(self.slo.gain, self.prompt_tokens, self.output_tokens)

    def call_ended(self, outcome: Outcome, now_s: float, stage: int) -> None:
        """Add a call that ended at `now_s`; `stage` counts from 0."""
        self.calls += 1
        self.stages = max(self.stages, stage + 1)
        self.prompt_tokens += outcome.prompt_tokens
        self.output_tokens += outcome.output_tokens
        self.last_s = now_s

    def finish(self) -> Outcome:
        """Close the books with the last call's end as the program's. A program without calls earns nothing."""
        ttlt_s = self.last_s - self.arrival_s
        allowed_s = self.deadline_s - self.arrival_s
        return Outcome(
            slo_class=self.slo.name,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            ttft_s=nan,
            tbt_s=nan,
            ttlt_s=ttlt_s,
            gain=self.value * fade(allowed_s, ttlt_s, self.slo.gain.decay) if self.calls else 0.0,
            attained=self.calls > 0 and ttlt_s <= allowed_s,
        )
