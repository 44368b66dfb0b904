"""The facts that a policy sees and the plan that it returns.

`Job` holds what never changes about a request and is built once, on arrival; `Entry` adds what the last step changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, nan
from typing import Final, NamedTuple

import numpy as np

from tempo_core.lengths import CURVE, Floats, curve, default_grid
from tempo_core.slo import Pattern, SLOClass
from tempo_core.steptime import StepTime

_PATTERN_CODE: Final = {pattern: float(code) for code, pattern in enumerate(Pattern)}
LATENCY, DEADLINE, COLLECTIVE, BEST_EFFORT = (_PATTERN_CODE[p] for p in Pattern)

COLUMNS: Final = (
    "pattern", "arrival", "prompt", "max_tokens", "ttft", "tbt", "due", "scored_from", "weight", "w_in", "w_out",
    "decay", "banked", "latest", "later_prompt", "later_output", "tools",
)  # fmt: skip
"""The columns of `Job.row`, before the length curve."""


class Job:
    """What never changes about a request.

    Args:
        id: unique among the live requests.
        slo: the class that it is served as.
        arrival_s: absolute, the clock of `schedule`'s `now_s`.
        prompt_tokens: prompt length.
        max_tokens: the cap on its output.
        lengths: quantiles of the output length at `lengths.GRID`; None stands for the conservative default.
        deadline_s: absolute; inf where its pattern has none. For a collective call, its stage's sub-deadline.
        program: id of the program that it is a call of, or None. Live calls of a program share one density.
        program_arrival_s: when the program arrived; its gain fades from there. None: as the call itself.
        banked_gain: what the program's finished calls have at stake.
        latest_s: until when a collective call may end, absolute, for its program to be in time; a sub-deadline that is
            missed can be caught up with by later stages. None: `deadline_s`.
        later_prompt_tokens: expected of the program's later stages, all calls; they earn and cost with this one.
        later_output_tokens: the same.
        tools: whether the program runs tools between its stages.
        priority: vLLM's own number, lower first; only the `priority` policy reads it.
        tenant: whom it is served for; `vtc` reads it, and `tempo` where a share of the rank is fairness.
        attained_tokens: output tokens of the program's finished calls; only `plas` reads it.
        critical_tokens: the same along the longest chain of finished calls that leads to this one; only `atlas` reads
            it. None: as `attained_tokens`, which is the same in a program without parallel calls.

    """

    __slots__ = (
        "arrival_s",
        "attained_tokens",
        "critical_tokens",
        "deadline_s",
        "id",
        "max_tokens",
        "priority",
        "program",
        "program_arrival_s",
        "prompt_tokens",
        "row",
        "slo",
        "tenant",
    )

    def __init__(  # noqa: PLR0913  # one constructor for the facts; all but two are keywords
        self,
        id: str,  # noqa: A002
        slo: SLOClass,
        *,
        arrival_s: float,
        prompt_tokens: int,
        max_tokens: int,
        lengths: Sequence[float] | None = None,
        deadline_s: float = inf,
        program: str | None = None,
        program_arrival_s: float | None = None,
        banked_gain: float = 0.0,
        latest_s: float | None = None,
        later_prompt_tokens: float = 0.0,
        later_output_tokens: float = 0.0,
        tools: bool = False,
        priority: int = 0,
        tenant: str = "",
        attained_tokens: float = 0.0,
        critical_tokens: float | None = None,
    ) -> None:
        self.id = id
        self.slo = slo
        self.arrival_s = arrival_s
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.deadline_s = deadline_s
        self.program = program
        self.program_arrival_s = arrival_s if program_arrival_s is None else program_arrival_s
        self.priority = priority
        self.tenant = tenant
        self.attained_tokens = attained_tokens
        self.critical_tokens = attained_tokens if critical_tokens is None else critical_tokens
        gain, objectives = slo.gain, slo.objectives
        self.row: Floats = np.array(
            (
                _PATTERN_CODE[slo.pattern],
                arrival_s,
                prompt_tokens,
                max_tokens,
                objectives.ttft_s,
                objectives.tbt_s,
                deadline_s,
                self.program_arrival_s,
                gain.weight,
                gain.input_token,
                gain.output_token,
                gain.decay,
                banked_gain,
                deadline_s if latest_s is None else latest_s,
                later_prompt_tokens,
                later_output_tokens,
                tools,
                *curve(lengths or default_grid(max_tokens)),
            )
        )


class Entry(NamedTuple):
    """A live request, as it stands at the start of a step."""

    job: Job
    generated: int = 0
    """Output tokens so far."""
    computed: int = 0
    """Tokens, of prompt and output, whose keys and values are in the cache; of one that waits, those it would find."""
    running: bool = False
    """Whether it holds a place in the engine's batch."""
    first_token_s: float = nan
    """When its first token appeared, absolute; nan before."""
    waiting_since_s: float = nan
    """Since when it has waited for a place, absolute; nan while it runs."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a pool may tune; see `TempoPool.spec.scheduler`."""

    length_quantile: float = 0.95
    preempt_margin: float = 0.2
    """How much denser, as a share, a waiting request must be than the one that it displaces."""
    promise_value: float = 1.0
    """How much a kept promise counts beside its gain; `density.outlook` has the unit. 0: gain alone."""
    patience_s: float = 30.0
    """After this long without a place, a request moves to the aged lane, whatever it is worth."""
    aged_share: float = 1.0 / 128.0
    """The aged lane's share of the batch, served oldest first and never preempted; below one place, one at times."""
    min_prefill_tokens: int = 32
    """A step always leaves room for this much prefill."""
    tbt_headroom: float = 0.9
    """Share of the tightest TBT that a step may take."""
    fairness: float = 0.0
    """Share of a request's rank, from 0 to 1, that is how little its tenant has been served."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a policy may look at."""

    entries: Sequence[Entry]
    max_running: int
    """The engine's places (vLLM: max_num_seqs)."""
    max_step_tokens: int
    """The engine's token budget a step (vLLM: max_num_batched_tokens)."""
    step_time: StepTime = field(default_factory=StepTime)
    settings: Settings = field(default_factory=Settings)
    cache_tokens: float = inf
    """What the engine's cache holds; only the `andes` policy reads it."""
    served: Mapping[str, float] = field(default_factory=dict)
    """Virtual token counters of the live requests' tenants; see `TenantCounters`. `vtc` and `tempo` read them."""
    preempted: Mapping[str, int] = field(default_factory=dict)
    """How often each live request has lost its place, by id; who never has may be absent. Only `andes` reads it."""


class Reason(StrEnum):
    """Why a request stands where it stands in a plan."""

    ARRIVAL = "arrival"
    """By arrival, or by the number its caller gave."""
    ON_TIME = "on_time"
    """Can meet its target."""
    DEFERRED = "deferred"
    """Could meet its target, but not behind what goes before it."""
    LATE = "late"
    """Is not expected to meet its target any more."""
    NO_TARGET = "no_target"
    """Best effort."""
    AGED = "aged"
    """Waited longer than the policy lets anyone wait."""
    RANKED = "ranked"
    """By the measure that the policy is named for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the engine should do until the next plan."""

    order: Sequence[str]
    """Every request's id, first served first."""
    preempt: Sequence[str]
    """Running requests to take off the batch now."""
    token_budget: int
    """Tokens a step may schedule."""
    max_running: int
    """Places that the step may fill."""
    reasons: Mapping[str, Reason]


def table(entries: Sequence[Entry]) -> tuple[dict[str, Floats], Floats]:
    """The static facts of these entries as columns of shape (n,), and their length curves, shape (n, CURVE)."""
    rows = np.concatenate([entry.job.row for entry in entries]).reshape(len(entries), len(COLUMNS) + CURVE)
    columns = np.ascontiguousarray(rows[:, : len(COLUMNS)].T)
    return dict(zip(COLUMNS, columns, strict=True)), rows[:, len(COLUMNS) :]
