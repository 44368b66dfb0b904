"""What the router knows of its replicas: who is ready, what each still has to do, and how fast each is.

Pure bookkeeping with time as an argument; `upstreams` and `forward` tell it what happened. Work is counted in tokens
that requests in flight are still expected to need; what a request has left is dropped when it ends, whatever was
expected.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from tempo_core.routing import Replica, route

PROMPT_SHARE: Final = 0.1
"""A prompt token's work, in output tokens: prefill is batched, decoding goes token by token."""
FAILURES_TO_EJECT: Final = 2
"""Probes or requests in a row; one lost packet should move no traffic."""
SAMPLE_S: Final = 2.0
"""Speed is measured over windows at least this long, so that answers that come in one piece average out."""
SMOOTHING: Final = 0.3
LONGEST_MEMORY: Final = 10_000
"""Programs whose replica is remembered."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place at one replica, from `Fleet.assign` to `Fleet.release`."""

    replica: str
    left_tokens: int
    member: "_Member" = field(repr=False)
    """Stays the same when another replica takes the name."""
    open: bool = True

    @property
    def url(self) -> str:
        """Base URL of the replica."""
        return self.member.url


@dataclass(slots=True)
class _Speed:
    """How many tokens a second a replica can do.

    A replica with little to do is not slow: a lower figure than before counts only when it was measured under at
    least as much load. (If it counted always, the replica that got less would look slower, and get less still.)
    """

    tokens_per_s: float = 0.0
    load: float = 0.0
    """Requests in flight when it was measured."""
    tokens: int = 0
    since_s: float | None = None

    def sample(self, now_s: float, in_flight: int) -> None:
        if self.since_s is None:
            self.since_s = now_s
        window_s = now_s - self.since_s
        if window_s < SAMPLE_S:
            return
        measured, self.tokens, self.since_s = self.tokens / window_s, 0, now_s
        if measured > self.tokens_per_s or in_flight >= max(self.load, 1.0):
            share = SMOOTHING if self.tokens_per_s else 1.0
            self.tokens_per_s += share * (measured - self.tokens_per_s)
            self.load += share * (in_flight - self.load)


@dataclass(slots=True)
class _Member:
    url: str
    ready: bool = False
    failures: int = 0
    in_flight: int = 0
    left_tokens: int = 0
    speed: _Speed = field(default_factory=_Speed)


class Fleet:
    """The replicas of one pool, by name.

    Args:
        replicas: base URL of each by name; none is ready before its first good probe.

    """

    def __init__(self, replicas: Mapping[str, str]) -> None:
        self._members: dict[str, _Member] = {}
        self._homes: OrderedDict[str, str] = OrderedDict()
        self.replace(replicas)

    def replace(self, replicas: Mapping[str, str]) -> None:
        """Go on with these replicas; what is known of those that stay is kept, and tickets of the others stay good."""
        before = self._members
        self._members = {}
        for name, url in replicas.items():
            known, new = before.get(name), _Member(url.rstrip("/"))
            self._members[name] = known if known and known.url == new.url else new

    @property
    def urls(self) -> dict[str, str]:
        """Base URL by name."""
        return {name: member.url for name, member in self._members.items()}

    @property
    def ready(self) -> dict[str, bool]:
        """Whether each takes requests, by name."""
        return {name: member.ready for name, member in self._members.items()}

    @property
    def in_flight(self) -> dict[str, int]:
        """Requests at each, by name."""
        return {name: member.in_flight for name, member in self._members.items()}

    @property
    def tokens_per_s(self) -> dict[str, float]:
        """How fast each can go, by name; 0 where it is not known yet."""
        return {name: member.speed.tokens_per_s for name, member in self._members.items()}

    def assign(self, tokens: int, program: str | None = None, excluded: Collection[str] = ()) -> Ticket | None:
        """A place for a request of about `tokens` tokens at the best replica, or None where there is none."""
        chosen = route(self._facts(program), tokens, excluded)
        if chosen is None:
            return None
        member = self._members[chosen.name]
        member.in_flight += 1
        member.left_tokens += tokens
        if program is not None:
            self._homes[program] = chosen.name
            self._homes.move_to_end(program)
            if len(self._homes) > LONGEST_MEMORY:
                self._homes.popitem(last=False)
        return Ticket(chosen.name, tokens, member)

    def produced(self, ticket: Ticket, tokens: int) -> None:
        """The request brought this many more tokens."""
        member, done = ticket.member, min(tokens, ticket.left_tokens)
        member.speed.tokens += tokens
        ticket.left_tokens -= done
        member.left_tokens -= done

    def release(self, ticket: Ticket) -> None:
        """The request left its replica; harmless when repeated."""
        if not ticket.open:
            return
        ticket.open = False
        member = ticket.member
        member.in_flight -= 1
        member.left_tokens -= ticket.left_tokens
        ticket.left_tokens = 0

    def probed(self, name: str, now_s: float, ready: bool) -> None:
        """A probe's answer: whether the replica says that it is ready. Lets an ejected one back in."""
        member = self._members[name]
        member.ready, member.failures = ready, 0
        member.speed.sample(now_s, member.in_flight)

    def failed(self, name: str) -> None:
        """A probe or a request did not get through; enough of them in a row eject the replica."""
        member = self._members.get(name)  # it may be gone since the request was sent
        if member is None:
            return
        member.failures += 1
        if member.failures >= FAILURES_TO_EJECT:
            member.ready = False

    def _facts(self, program: str | None) -> list[Replica]:
        home = None if program is None else self._homes.get(program)
        known = [member.speed.tokens_per_s for member in self._members.values() if member.speed.tokens_per_s]
        usual = sum(known) / len(known) if known else 1.0  # what a replica without history is taken for
        return [
            Replica(name, member.ready, member.left_tokens, member.speed.tokens_per_s or usual, name == home)
            for name, member in self._members.items()
        ]
