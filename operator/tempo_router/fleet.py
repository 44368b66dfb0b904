"""What the router knows of its replicas: who is ready, what each still has to do, and how fast each is.

Bookkeeping without I/O; `upstreams` and `forward` tell it what happened. Work is counted in tokens that requests in
flight are still expected to need; what a request has left is dropped when it ends, whatever was expected.

A replica takes requests while it says that it is ready and can be reached. Three other things are told apart:

    stale      has said nothing for a while: not chosen while another is fresh, but not taken for full
    lost       streams and probes come to nothing: not ready until it is heard again, and after some seconds what it
               has not finished is given up
    ejected    requests fare worse there than elsewhere, or not at all: left alone, then probed, then tried with one
               request at a time; never more than half of the replicas, and not while fewer than half would remain
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from tempo_api.state import EngineState
from tempo_core.prefixes import BLOCK_TOKENS, PrefixTable
from tempo_core.routing import Replica
from tempo_router.limits import Limits
from tempo_router.member import Context, Member, Speed, Ticket
from tempo_router.outliers import Record, outliers
from tempo_router.retries import RetryBudget

LONGEST_MEMORY: Final = 10_000
"""Programs whose replica is remembered."""
_REVIEW_EVERY_S: Final = 0.25
_FIRST_GUESS: Final = 256.0
_MEMORY: Final = 0.02
"""The share of the usual request's tokens that the latest one makes."""


class Fleet:
    """The replicas of one pool, by name.

    Args:
        replicas: base URL of each by name; none is ready before it says so.
        clock: seconds.
        limits: how much it takes to be left alone.

    """

    def __init__(
        self, replicas: Mapping[str, str], clock: Callable[[], float] = time.monotonic, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.on_change: Callable[[], None] = lambda: None
        """Called whenever a replica may have become ready, or may have more room than before; must be cheap."""
        self.on_lost: Callable[[str], None] = lambda _: None
        """Called with the base URL of a replica that is gone, or hangs: what it owes will not come."""
        self._clock = clock
        self._members: dict[str, Member] = {}
        self._homes: OrderedDict[str, str] = OrderedDict()
        self._prefixes = PrefixTable()
        self._budget = RetryBudget()
        self._usual_tokens = _FIRST_GUESS
        self._reviewed_s = clock()
        self.replace(replicas)

    def __len__(self) -> int:
        return len(self._members)

    def replace(self, replicas: Mapping[str, str]) -> None:
        """Go on with these replicas; what is known of those that stay is kept, and tickets of the others stay good."""
        before, self._members = self._members, {}
        for name, url in replicas.items():
            known, base = before.get(name), url.rstrip("/")
            self._members[name] = known if known and known.url == base else Member(base, Record(self.limits))
        for name, member in before.items():
            if self._members.get(name) is not member:
                self._prefixes.forget(name)
        self.on_change()

    # -- what there is ------------------------------------------------------------------------------------------------

    @property
    def urls(self) -> dict[str, str]:
        """Base URL by name."""
        return {name: member.url for name, member in self._members.items()}

    @property
    def ready(self) -> dict[str, bool]:
        """Whether each takes requests, by name."""
        kept_out = self._kept_out()
        return {name: member.says_ready and name not in kept_out for name, member in self._members.items()}

    @property
    def in_flight(self) -> dict[str, int]:
        """Requests of this router at each, by name."""
        return {name: member.in_flight for name, member in self._members.items()}

    @property
    def tokens_per_s(self) -> dict[str, float]:
        """How fast each can go, by name; 0 where it is not known yet."""
        return {name: member.speed.tokens_per_s for name, member in self._members.items()}

    @property
    def state_age_s(self) -> dict[str, float]:
        """How long ago each said something of itself, by name; inf: never."""
        now_s = self._clock()
        return {name: now_s - member.heard_s for name, member in self._members.items()}

    @property
    def stale(self) -> dict[str, bool]:
        """Whether that is too long ago, by name."""
        now_s, limit_s = self._clock(), self.limits.stale_s
        return {name: member.stale(now_s, limit_s) for name, member in self._members.items()}

    @property
    def ejected(self) -> dict[str, bool]:
        """Whether each is ejected, by name."""
        return {name: member.record.out for name, member in self._members.items()}

    # -- the choice ---------------------------------------------------------------------------------------------------

    def candidates(self, program: str | None = None, prefix: Sequence[int] = ()) -> list[Replica]:
        """The facts of every replica for a request of this program whose prompt has these keys (`prefixes.chain`)."""
        members = self._members
        matched = self._prefixes.matched(prefix) if prefix else {}
        context = Context(
            now_s=self._clock(),
            stale_s=self.limits.stale_s,
            usual_tokens=self._usual_tokens / 2,  # those in flight are half done, on average
            usual_speed=self._usual_speed(),
            home=None if program is None else self._homes.get(program),
            prefix_tokens={name: BLOCK_TOKENS * blocks for name, blocks in matched.items()},
            kept_out=self._kept_out(),
        )
        return [member.facts(name, context) for name, member in members.items()]

    def take(
        self, name: str, tokens: int, program: str | None = None, prefix: Sequence[int] = (), *, streams: bool = False
    ) -> Ticket:
        """A place at this replica for a request of about `tokens` tokens, whose answer may be a stream.

        Raises:
            KeyError: for a replica that is no more.

        """
        now_s, member = self._clock(), self._members[name]
        ticket = Ticket(name, tokens, now_s, member, streams, member.record.on_trial)
        if not member.in_flight:
            member.brought_s = now_s
        member.in_flight += 1
        member.streaming += streams
        member.trials += ticket.trial
        member.left_tokens += tokens
        self._budget.request(now_s)
        self._usual_tokens += _MEMORY * (tokens - self._usual_tokens)
        if prefix:
            self._prefixes.note(prefix, name)
        if program is not None:
            self._homes[program] = name
            self._homes.move_to_end(program)
            if len(self._homes) > LONGEST_MEMORY:
                self._homes.popitem(last=False)
        return ticket

    def could_retry(self) -> bool:
        """Whether the budget has a retry left."""
        return self._budget.left(self._clock())

    def may_retry(self) -> bool:
        """The same; this takes it from the budget."""
        return self._budget.retry(self._clock())

    # -- how requests fare --------------------------------------------------------------------------------------------

    def answered(self, ticket: Ticket, status: int) -> None:
        """The replica's answer to the request began with this status."""
        now_s, member = self._clock(), ticket.member
        member.brought_s, tried = now_s, member.record.on_trial
        if member.record.answered(now_s, now_s - ticket.taken_s if ticket.streams else None, good=status < 500):
            self._eject(member, now_s)
        elif tried:
            member.speed.restart()
            self.on_change()

    def produced(self, ticket: Ticket, tokens: int) -> None:
        """The request brought this many more tokens."""
        member, done = ticket.member, min(tokens, ticket.left_tokens)
        member.speed.tokens += tokens
        member.passed_tokens += tokens
        ticket.left_tokens -= done
        member.left_tokens -= done

    def release(self, ticket: Ticket) -> None:
        """The request left its replica; harmless when repeated."""
        if not ticket.open:
            return
        ticket.open = False
        member = ticket.member
        member.in_flight -= 1
        member.streaming -= ticket.streams
        member.trials -= ticket.trial
        member.left_tokens -= ticket.left_tokens
        ticket.left_tokens = 0
        self.on_change()

    def failed(self, name: str) -> None:
        """A request to this replica did not get through; enough of them in a row eject it."""
        member, now_s = self._members.get(name), self._clock()  # it may be gone since the request was sent
        if member and member.record.failed(now_s):
            self._eject(member, now_s)
            self.on_change()

    # -- what replicas say --------------------------------------------------------------------------------------------

    def pushed(self, name: str, state: EngineState) -> None:
        """The replica pushed its state."""
        now_s = self._clock()
        self._members[name].hear(state, now_s)
        self._review(now_s)
        self.on_change()

    def probed(self, name: str, *, ready: bool) -> None:
        """A probe's answer: whether the replica says that it is ready. Lets an ejected one in whose time is over."""
        now_s, member = self._clock(), self._members[name]
        member.probe(now_s, ready=ready)
        if ready and member.record.due(now_s):
            member.record.readmit()
        self._review(now_s)
        self.on_change()

    def missed(self, name: str) -> None:
        """A stream broke or fell silent, or a probe came to nothing; enough of them in a row, and it is lost."""
        member, limits = self._members[name], self.limits
        member.miss()
        if member.losses == limits.losses:
            member.says_ready = False
            member.forget_state()
            self._prefixes.forget(name)
            self.on_change()
        if member.losses >= limits.losses and self._clock() - member.heard_s >= limits.gone_s:
            self.on_lost(member.url)

    def unreadable(self, name: str) -> None:
        """The replica has no stream, or none that can be read: it is probed instead."""
        self._members[name].forget_state()

    def wants_probe(self, name: str) -> bool:
        """Whether only a probe can tell how the replica is."""
        now_s, member = self._clock(), self._members[name]
        return not member.streams or member.stale(now_s, self.limits.stale_s) or member.record.due(now_s)

    def _usual_speed(self) -> float:
        """Tokens a second of a replica of which nothing better is known."""
        speeds = [member.speed.tokens_per_s for member in self._members.values() if member.speed.tokens_per_s]
        return sum(speeds) / len(speeds) if speeds else 1.0

    # -- ejection -----------------------------------------------------------------------------------------------------

    def _review(self, now_s: float) -> None:
        if now_s - self._reviewed_s < _REVIEW_EVERY_S:
            return
        self._reviewed_s = now_s
        for name in outliers({name: member.record for name, member in self._members.items()}, self.limits, now_s):
            self._eject(self._members[name], now_s)
        usual_speed = self._usual_speed()
        for member in self._members.values():
            if member.hangs(now_s, self.limits.silent_s, usual_speed) and self._eject(member, now_s):
                member.speed = Speed()  # that it brought nothing is no measure of how fast it will be
                self.on_lost(member.url)

    def _eject(self, member: Member, now_s: float) -> bool:
        """Leave it alone, if enough remain; whether that is news."""
        out = sum(other.record.out for other in self._members.values())
        if member.record.out or 2 * (out + 1) > len(self._members):
            return False
        member.record.eject(now_s)
        return True

    def _kept_out(self) -> Collection[str]:
        """The ejected; nobody, where fewer than half of the replicas would take requests: they would drown."""
        out = [name for name, member in self._members.items() if member.left_alone]
        if not out:
            return ()
        left = sum(member.says_ready and not member.left_alone for member in self._members.values())
        return out if 2 * left >= len(self._members) else ()
