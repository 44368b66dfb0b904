"""One replica as the router sees it, and one request's place there."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from tempo_api.state import EngineState
from tempo_core.routing import Replica
from tempo_router.outliers import Record

SAMPLE_S: Final = 2.0
"""Speed is measured over windows at least this long, so that answers that come in one piece average out."""
SMOOTHING: Final = 0.3
PROBES_MISSED: Final = 3
"""Who is probed, for it pushes nothing, is stale after so many times the limit for who does."""
_SILENT: Final = EngineState()


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place at one replica, from `Fleet.take` to `Fleet.release`."""

    replica: str
    left_tokens: int
    taken_s: float
    member: "Member" = field(repr=False)
    """Stays the same when another replica takes the name."""
    streams: bool = False
    trial: bool = False
    """The one request by which it shows whether the replica is well again."""
    open: bool = True

    @property
    def url(self) -> str:
        """Base URL of the replica."""
        return self.member.url


@dataclass(slots=True)
class Speed:
    """How many tokens a second a replica can do.

    A replica with little to do is not slow: a lower figure than before counts only when it was measured under at
    least as much load. (If it counted always, the replica that got less would look slower, and get less still.)
    """

    tokens_per_s: float = 0.0
    load: float = 0.0
    """Requests in flight when it was measured."""
    tokens: int = 0
    since_s: float | None = None

    def sample(self, now_s: float, in_flight: int, told: float = 0.0) -> None:
        """Measure, once in `SAMPLE_S`; `told` is what the replica says itself, which counts other routers' too."""
        if self.since_s is None:
            self.since_s = now_s
        window_s = now_s - self.since_s
        if window_s < SAMPLE_S:
            return
        measured, self.tokens, self.since_s = told or self.tokens / window_s, 0, now_s
        if measured > self.tokens_per_s or in_flight >= max(self.load, 1.0):
            share = SMOOTHING if self.tokens_per_s else 1.0
            self.tokens_per_s += share * (measured - self.tokens_per_s)
            self.load += share * (in_flight - self.load)

    def restart(self) -> None:
        """Begin a window anew, for in the one at hand it was given too little to show how fast it is."""
        self.tokens, self.since_s = 0, None


class Context(NamedTuple):
    """What the facts of a replica depend on beside itself."""

    now_s: float
    stale_s: float
    usual_tokens: float
    """Left of a request of another router."""
    usual_speed: float
    """Tokens a second of a replica that has shown none yet."""
    home: str | None
    """Where the request's program was served last."""
    prefix_tokens: Mapping[str, float]
    kept_out: Collection[str]


@dataclass(slots=True, eq=False)
class Member:
    """A replica: what it said, what this router sent there, and how that went."""

    url: str
    record: Record
    says_ready: bool = False
    streams: bool = False
    """It pushes its state, or did until the connection broke."""
    state: EngineState = _SILENT
    """Its last word."""
    heard_s: float = -inf
    """When that was; of one that pushes nothing, its last probe."""
    losses: int = 0
    """Streams and probes in a row that came to nothing."""
    in_flight: int = 0
    """Of this router."""
    streaming: int = 0
    """Streams among these."""
    trials: int = 0
    """Requests among these that were sent on trial."""
    brought_s: float = -inf
    """When something last came of a request, or was asked for where nothing was in flight."""
    others: int = 0
    """Requests of other routers, by its last word."""
    left_tokens: int = 0
    passed_tokens: int = 0
    passed_before: int = 0
    """`passed_tokens` when it was last lost."""
    passed_lately: int = 0
    """`passed_tokens` when `hangs` was last asked."""
    speed: Speed = field(default_factory=Speed)

    def stale(self, now_s: float, limit_s: float) -> bool:
        """Whether it has said nothing for too long."""
        return now_s - self.heard_s > (limit_s if self.streams else PROBES_MISSED * limit_s)

    @property
    def left_alone(self) -> bool:
        """It gets nothing now: it is ejected, or on trial and has the one request that this takes."""
        return self.record.out or (self.record.on_trial and self.trials > 0)

    def hangs(self, now_s: float, limit_s: float, usual_speed: float) -> bool:
        """Whether it has brought nothing for `limit_s`, and for as long as all that it has should take.

        Only a stream says something all the time; a whole answer may rightly be silent for long, and is no sign but on
        trial, and where the engine is not well.
        """
        if self.passed_tokens != self.passed_lately:
            self.passed_lately, self.brought_s = self.passed_tokens, now_s
        owes = self.streaming
        if not (self.says_ready or self.state.draining):
            owes = self.in_flight
        elif self.record.on_trial:
            owes = max(owes, self.trials)
        if not owes:
            return False
        return now_s - self.brought_s > limit_s + self.left_tokens / (self.speed.tokens_per_s or usual_speed)

    def hear(self, state: EngineState, now_s: float) -> None:
        """It pushed a line."""
        self.state, self.says_ready, self.heard_s = state, state.ready, now_s
        self.streams, self.losses = True, 0
        self.others = max(state.in_flight - self.in_flight, 0)
        self.speed.sample(now_s, state.in_flight, state.tokens_per_s)

    def probe(self, now_s: float, *, ready: bool) -> None:
        """It answered a probe; that says nothing of its load."""
        self.says_ready, self.losses = ready, 0
        if not self.streams:
            self.heard_s = now_s
            self.speed.sample(now_s, self.in_flight)

    def miss(self) -> None:
        """A stream or a probe came to nothing. Tokens that came since the last time say that it is alive still."""
        self.losses = 1 if self.passed_tokens > self.passed_before else self.losses + 1
        self.passed_before = self.passed_tokens

    def forget_state(self) -> None:
        """What it said is void: it was lost, or has stopped to push."""
        self.state, self.others, self.streams = _SILENT, 0, False

    def facts(self, name: str, context: Context) -> Replica:
        """For the choice; what a stale replica said of its load long ago counts no more."""
        stale = self.stale(context.now_s, context.stale_s)
        state, others = (_SILENT, 0) if stale else (self.state, self.others)
        return Replica(  # by position: this runs for each replica of each request
            name,
            self.says_ready and name not in context.kept_out,
            self.left_tokens + others * context.usual_tokens,
            self.speed.tokens_per_s or context.usual_speed,
            name == context.home,
            self.in_flight + others,
            self.state.places,
            state.waiting,
            state.cache_used,
            stale,
            context.prefix_tokens.get(name, 0.0),
            self.state.step_time,
            self.state.ranks,
        )
