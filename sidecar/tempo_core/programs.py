"""Which stage of its program a call belongs to.

A program is many dependent calls under one deadline. Clients that say nothing but "these calls belong together" still
get stages: calls in flight together share one, and a call after all of them ended opens the next.
"""

from collections import OrderedDict
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from tempo_core.gain import Outcome, ProgramLedger
from tempo_core.slo import SLOClass


class Call(NamedTuple):
    """A call's place in its program."""

    program: str
    stage: int
    program_arrival_s: float
    deadline_s: float
    """Absolute, cumulative sub-deadline of its stage (the whole program's, where the caller gave one)."""
    banked_gain: float
    """What the program's finished calls have at stake."""


@dataclass(slots=True)
class _Program:
    ledger: ProgramLedger
    stage: int = 0
    live: int = 0
    touched_s: float = -inf
    final: bool = False


class Programs:
    """The running programs. Bounded: idle ones end after `idle_s`, and beyond `capacity` the stalest goes first.

    Time is an argument of every method; times are absolute seconds.
    """

    def __init__(self, *, idle_s: float = 300.0, capacity: int = 10_000) -> None:
        self._idle_s = idle_s
        self._capacity = capacity
        self._programs: OrderedDict[str, _Program] = OrderedDict()

    def __len__(self) -> int:
        return len(self._programs)

    def begin(  # a call's facts, all but three optional
        self,
        program: str,
        slo: SLOClass,
        now_s: float,
        *,
        stage: int | None = None,
        deadline_s: float | None = None,
        final: bool = False,
    ) -> Call:
        """A call arrives. `stage` is inferred if None; `deadline_s` is the program's own, absolute; `final` says that
        no call follows once those in flight have ended.
        """
        known = self._programs.get(program)
        if known is None:
            known = self._programs[program] = _Program(ProgramLedger(slo, now_s, deadline_s))
        elif stage is None:
            stage = known.stage if known.live else known.stage + 1
        known.stage = max(known.stage, stage or 0)
        known.live += 1
        known.final = known.final or final
        known.touched_s = now_s
        self._programs.move_to_end(program)
        ledger, stage = known.ledger, stage or 0
        own = ledger.arrival_s + ledger.slo.deadline_s(stage)
        return Call(program, stage, ledger.arrival_s, own if deadline_s is None else min(own, deadline_s), ledger.value)

    def end(self, call: Call, outcome: Outcome, now_s: float) -> Outcome | None:
        """A call ended; returns the program's outcome if that was its last."""
        known = self._programs.get(call.program)
        if known is None:
            return None
        known.live -= 1
        known.touched_s = now_s
        known.ledger.call_ended(outcome, now_s, call.stage)
        if known.final and not known.live:
            return self._programs.pop(call.program).ledger.finish()
        return None

    def expire(self, now_s: float) -> list[Outcome]:
        """Close programs that have been idle, and the stalest beyond capacity; returns their outcomes."""
        stale = [
            name for name, known in self._programs.items() if not known.live and now_s - known.touched_s >= self._idle_s
        ]
        surplus = len(self._programs) - len(stale) - self._capacity
        if surplus > 0:
            gone = set(stale)
            stale += [name for name in self._programs if name not in gone][:surplus]
        return [self._programs.pop(name).ledger.finish() for name in stale]
