"""Which replicas do worse than the others, and are left alone for a while (outlier ejection, as Envoy has it).

    in service --failures in a row; 5xx or first bytes far beyond the peers'; silence--> out for out_s, 2 out_s, ...
    out        --its time is over, and a probe is good--> on trial: one request at a time
    on trial   --a good answer--> in service; --a bad one, or none--> out again

Pure, with time as an argument. Who may be ejected, so that enough remain, is the fleet's business.
"""

from collections import deque
from collections.abc import Collection, Mapping
from itertools import islice
from math import inf
from statistics import fmean, median
from typing import Final, NamedTuple

from tempo_router.limits import Limits

_MOST_ANSWERS: Final = 200
_LATEST: Final = 20
"""Answers of which the share of errors is taken: who has answered well for long may break in a moment, and who answers
errors answers fast, and is given all the more."""


class Summary(NamedTuple):
    """A replica's latest answers."""

    answers: int
    error_share: float
    """Of the very latest."""
    first_byte_s: float
    """The median of its good streams; 0 if there are too few."""


class _Answer(NamedTuple):
    at_s: float
    good: bool
    first_byte_s: float | None = None


class Record:
    """How requests fared at one replica, and whether it is out for that."""

    def __init__(self, limits: Limits) -> None:
        self.out = False
        self.on_trial = False
        self._limits = limits
        self._answers: deque[_Answer] = deque(maxlen=_MOST_ANSWERS)
        self._in_a_row = 0
        self._times_out = 0
        self._until_s = -inf

    def answered(self, now_s: float, first_byte_s: float | None, *, good: bool) -> bool:
        """An answer began; whether the replica deserves to be ejected.

        Args:
            now_s: when.
            first_byte_s: how long after its request was sent, if that can be compared with others': a whole answer's
                first byte is its last, and comes the later the longer it is.
            good: it is no 5xx.

        """
        self._answers.append(_Answer(now_s, good, first_byte_s))
        if good:
            self._in_a_row, self.on_trial = 0, False
        return self.on_trial

    def failed(self, now_s: float) -> bool:
        """A request did not get through; whether the replica deserves to be ejected."""
        self._answers.append(_Answer(now_s, good=False))
        self._in_a_row += 1
        return self.on_trial or self._in_a_row >= self._limits.failures

    def eject(self, now_s: float) -> None:
        """Leave it alone, for longer if it was ejected not long ago."""
        limits = self._limits
        if now_s - self._until_s > limits.longest_out_s:
            self._times_out = 0
        self.out, self.on_trial = True, False
        self._until_s = now_s + min(limits.out_s * 2.0**self._times_out, limits.longest_out_s)
        self._times_out = min(self._times_out + 1, 32)

    def due(self, now_s: float) -> bool:
        """Whether it is out, and its time is over."""
        return self.out and now_s >= self._until_s

    def readmit(self) -> None:
        """Let it in on trial; what it did before is forgotten."""
        self.out, self.on_trial = False, True
        self._answers.clear()
        self._in_a_row = 0

    def summary(self, now_s: float) -> Summary:
        """Of the answers within the window."""
        while self._answers and now_s - self._answers[0].at_s > self._limits.window_s:
            self._answers.popleft()
        latest = list(islice(reversed(self._answers), _LATEST))
        bad = sum(not answer.good for answer in latest)
        firsts_s = [a.first_byte_s for a in self._answers if a.good and a.first_byte_s is not None]
        telling = len(firsts_s) >= self._limits.least_answers
        return Summary(len(self._answers), bad / max(len(latest), 1), median(firsts_s) if telling else 0.0)


def outliers(records: Mapping[str, Record], limits: Limits, now_s: float) -> list[str]:
    """Those in service that do far worse than their peers, the worst offence first: errors, then slowness."""
    summaries = {name: record.summary(now_s) for name, record in records.items() if not record.out}
    telling = {name: summary for name, summary in summaries.items() if summary.answers >= limits.least_answers}
    erring, slow = [], []
    for name, own in telling.items():
        peers = [summary for other, summary in telling.items() if other != name]
        if _errs(own, peers, limits):
            erring.append(name)
        elif _slow(own, peers, limits):
            slow.append(name)
    return erring + slow


def _errs(own: Summary, peers: Collection[Summary], limits: Limits) -> bool:
    usual = fmean(peer.error_share for peer in peers) if peers else 0.0
    return own.error_share >= max(limits.error_share, 2.0 * usual)


def _slow(own: Summary, peers: Collection[Summary], limits: Limits) -> bool:
    firsts_s = [peer.first_byte_s for peer in peers if peer.first_byte_s]
    return bool(firsts_s) and own.first_byte_s > max(limits.slow_s, limits.slower * median(firsts_s))
