"""Which replicas do worse than the others, and are left alone for a while (outlier ejection, as Envoy has it).

    in service --failures in a row; 5xx or first bytes far beyond the peers'--> out for out_s, 2 out_s, 4 out_s, ...
    out        --its time is over, and a probe is good--> in service, on probation: the next failure ejects it again

Pure, with time as an argument. Who may be ejected, so that enough remain, is the fleet's business.
"""

from collections import deque
from collections.abc import Collection, Mapping
from math import inf
from statistics import fmean, median
from typing import Final, NamedTuple

from tempo_router.limits import Limits

_MOST_ANSWERS: Final = 200


class Summary(NamedTuple):
    """A replica's latest answers."""

    answers: int
    error_share: float
    first_byte_s: float
    """The median of its good answers; 0 if there are none."""


class Record:
    """How requests fared at one replica, and whether it is out for that."""

    def __init__(self, limits: Limits) -> None:
        self.out = False
        self._limits = limits
        self._answers: deque[tuple[float, float]] = deque(maxlen=_MOST_ANSWERS)  # when, first byte; inf for an error
        self._in_a_row = 0
        self._times_out = 0
        self._until_s = -inf

    def answered(self, now_s: float, first_byte_s: float, *, good: bool) -> None:
        """An answer began, so many seconds after its request was sent; a 5xx is not `good`."""
        self._answers.append((now_s, first_byte_s if good else inf))
        if good:
            self._in_a_row = 0

    def failed(self, now_s: float) -> bool:
        """A request did not get through; whether the replica deserves to be ejected."""
        self._answers.append((now_s, inf))
        self._in_a_row += 1
        return self._in_a_row >= self._limits.failures

    def eject(self, now_s: float) -> None:
        """Leave it alone, for longer if it was ejected not long ago."""
        limits = self._limits
        if now_s - self._until_s > limits.longest_out_s:
            self._times_out = 0
        self.out = True
        self._until_s = now_s + min(limits.out_s * 2.0**self._times_out, limits.longest_out_s)
        self._times_out = min(self._times_out + 1, 32)

    def due(self, now_s: float) -> bool:
        """Whether it is out, and its time is over."""
        return self.out and now_s >= self._until_s

    def readmit(self) -> None:
        """Let it in on probation; what it did before is forgotten."""
        self.out = False
        self._answers.clear()
        self._in_a_row = self._limits.failures - 1

    def summary(self, now_s: float) -> Summary:
        """Of the answers within the window."""
        while self._answers and now_s - self._answers[0][0] > self._limits.window_s:
            self._answers.popleft()
        good = [first_byte_s for _, first_byte_s in self._answers if first_byte_s < inf]
        count = len(self._answers)
        return Summary(count, 1.0 - len(good) / max(count, 1), median(good) if good else 0.0)


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
    usual = median(peer.first_byte_s for peer in peers) if peers else inf
    return own.first_byte_s > max(limits.slow_s, limits.slower * usual)
