"""Which stage of its program a call belongs to.

A program is many dependent calls under one deadline. Clients that say nothing but "these calls belong together" still
get stages: calls in flight together share one, and a call after all of them ended opens the next. A stage that has
brought no token is not over, so that a caller who retries what was refused earns no later sub-deadline by it.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from tempo_core.gain import Outcome, ProgramLedger
from tempo_core.slo import SLOClass


class Call(NamedTuple):
    """A call's place in its program."""

    program: str
    stage: int
    program_arrival_s: float
    deadline_s: float
    """Absolute, cumulative sub-deadline of its stage (the whole program's, where the caller gave a later one)."""
    banked_gain: float
    """What the program's finished calls have at stake."""


@dataclass(slots=True)
class _Program:
    ledger: ProgramLedger
    deadline_s: float | None
    stage: int = 0
    answered: bool = False
    """Whether a call of the stage has brought a token."""
    live: int = 0
    touched_s: float = 0.0
    final: bool = False


class Programs:
    """The running programs. Idle ones end after `idle_s`, and beyond `capacity` the longest idle go first.

    A program with a call in flight never ends, so what is kept is bounded by `capacity` and the calls in flight.
    Time is an argument of every method; times are absolute seconds.
    """

    def __init__(self, *, idle_s: float = 300.0, capacity: int = 10_000) -> None:
        self._idle_s = idle_s
        self._capacity = capacity
        self._programs: OrderedDict[str, _Program] = OrderedDict()  # the longest untouched first

    def __len__(self) -> int:
        return len(self._programs)

    def begin(
        self,
        program: str,
        slo: SLOClass,
        now_s: float,
        *,
        stage: int | None = None,
        deadline_s: float | None = None,
        final: bool = False,
    ) -> Call:
        """A call arrives.

        Args:
            program: the program's id; unknown ones begin now.
            slo: its collective class; the first call's stays the program's.
            now_s: absolute.
            stage: from 0; None: inferred.
            deadline_s: seconds from the program's arrival; the first call's stays the program's. It only loosens what
                the class grants.
            final: no call follows once those in flight have ended.

        """
        known = self._programs.get(program)
        if known is None:
            own = None if deadline_s is None else now_s + deadline_s
            known = self._programs[program] = _Program(ProgramLedger(slo, now_s, own), own)
        if stage is None:
            stage = known.stage + (known.answered and not known.live)
        if stage > known.stage:
            known.stage, known.answered = stage, False
        known.live += 1
        known.final = known.final or final
        self._touch(program, known, now_s)
        ledger = known.ledger
        due_s = ledger.arrival_s + ledger.slo.deadline_s(stage)
        due_s = due_s if known.deadline_s is None else max(due_s, known.deadline_s)
        return Call(program, stage, ledger.arrival_s, due_s, ledger.value)

    def end(self, call: Call, outcome: Outcome, now_s: float) -> Outcome | None:
        """A call ended (once for each that began); returns the program's outcome if that was its last.

        A call that brought no token does not count: the program goes on as if it had not been made.
        """
        known = self._programs[call.program]
        known.live -= 1
        self._touch(call.program, known, now_s)
        if outcome.output_tokens:
            known.answered = known.answered or call.stage == known.stage
            known.ledger.call_ended(outcome, now_s, call.stage)
        if known.final and not known.live:
            return self._programs.pop(call.program).ledger.finish()
        return None

    def expire(self, now_s: float) -> list[Outcome]:
        """Close the programs that have been idle, and the longest idle beyond capacity; returns their outcomes."""
        idle = [(name, known.touched_s) for name, known in self._programs.items() if not known.live]
        surplus = len(self._programs) - self._capacity
        stale = [name for i, (name, touched_s) in enumerate(idle) if i < surplus or now_s - touched_s >= self._idle_s]
        return [self._programs.pop(name).ledger.finish() for name in stale]

    def _touch(self, program: str, known: _Program, now_s: float) -> None:
        known.touched_s = now_s
        self._programs.move_to_end(program)
