"""The running programs: forecasts for their calls, and graphs from their ends."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tempo_core.gain import Outcome
from tempo_core.graphs.forecast import Forecast, forecast, unmatched
from tempo_core.graphs.library import PROMPT_SHARE, GraphLibrary, Record
from tempo_core.graphs.running import A_TOOL_S, RunningProgram, RunningStage
from tempo_core.programs import Call
from tempo_core.slo import SLOClass

_LONGEST: Final = 1024
"""Stages of a program that are followed; the class's own rule stands for those beyond."""
_PACE_MEMORY: Final = 0.99
"""What a call's end leaves of the weight of those before it."""
_FIRST_PACE: Final = (3.0, 100.0)
"""Seconds and tokens until calls have ended: 30 ms a token."""


class PatternGraphs:
    """The running programs, and the graphs of those that ended. Times are absolute, seconds since the epoch.

    Every `begin` is owed an `end`. Programs end with the last call in flight after one that was said to be final, or
    by `expire` once they have been idle.

    Args:
        capacity: graphs kept of each class.
        idle_s: so long without a call in flight, and a program has ended.
        max_programs: beyond so many, the longest idle have ended.

    """

    def __init__(self, *, capacity: int = 500, idle_s: float = 300.0, max_programs: int = 10_000) -> None:
        self._capacity = capacity
        self._idle_s = idle_s
        self._max_programs = max_programs
        self._libraries: dict[str, GraphLibrary] = {}
        self._programs: OrderedDict[str, RunningProgram] = OrderedDict()  # the longest untouched first
        self._paced_s, self._paced_tokens = _FIRST_PACE

    @property
    def graphs(self) -> int:
        """Graphs kept, of all classes."""
        return sum(map(len, self._libraries.values()))

    @property
    def running(self) -> int:
        """Programs that have not ended."""
        return len(self._programs)

    @property
    def pace_s(self) -> float:
        """Seconds an output token that calls have lately taken, their wait included."""
        return self._paced_s / self._paced_tokens

    def begin(self, call: Call, slo: SLOClass, prompt_tokens: int, now_s: float, *, final: bool = False) -> Forecast:
        """A call arrives; returns the forecast made when the first call of its stage arrived.

        Args:
            call: its place in its program, with the deadline that its class grants (see `Programs.begin`).
            slo: its collective class; the first call's stays the program's.
            prompt_tokens: may be an estimate.
            now_s: when it arrived.
            final: no call follows once those in flight have ended.

        """
        program = self._programs.setdefault(call.program, RunningProgram(slo))
        known = program.stages.get(call.stage)
        if known is None:
            known = RunningStage(program.tool_s(now_s), unmatched(call))
            if call.stage < _LONGEST:
                program.stages[call.stage] = known
            known.begin(prompt_tokens)
            known.forecast = self._forecast(program, call, now_s)
        else:
            known.begin(prompt_tokens)
        program.live += 1
        program.final = program.final or final
        self._touch(call.program, program, now_s)
        return known.forecast

    def end(self, call: Call, outcome: Outcome, now_s: float) -> Record | None:
        """A call ended; returns what is to be stored, if that ended its program and it taught anything.

        One that brought no token does not count, nor one whose program was finished before it.
        """
        program = self._programs.get(call.program)
        if program is None:
            return None
        program.live -= 1
        self._touch(call.program, program, now_s)
        if outcome.output_tokens:
            self._learn(program, call, outcome, now_s)
        return self.finish(call.program, now_s) if program.final and not program.live else None

    def _learn(self, program: RunningProgram, call: Call, outcome: Outcome, now_s: float) -> None:
        program.ended_s = now_s
        self._paced_s = _PACE_MEMORY * self._paced_s + outcome.ttlt_s
        work = outcome.output_tokens + PROMPT_SHARE * outcome.prompt_tokens
        self._paced_tokens = _PACE_MEMORY * self._paced_tokens + work
        if stage := program.stages.get(call.stage):
            stage.end(outcome.prompt_tokens, outcome.output_tokens)

    def finish(self, program: str, now_s: float) -> Record | None:
        """A program ended; returns what is to be stored of it, if it taught anything."""
        ended = self._programs.pop(program, None)
        graph = ended.graph() if ended else None
        return self._library(ended.slo.name).add(graph, now_s) if ended and graph else None

    def expire(self, now_s: float) -> Sequence[Record]:
        """End the programs that have been idle; returns what is to be stored of them."""
        idle = [(name, known.touched_s) for name, known in self._programs.items() if not known.live]
        surplus = len(self._programs) - self._max_programs
        stale = [name for i, (name, touched_s) in enumerate(idle) if i < surplus or now_s - touched_s >= self._idle_s]
        return [record for name in stale if (record := self.finish(name, now_s))]

    def restore(self, record: Record, now_s: float) -> None:
        """Take over a stored graph.

        Raises:
            GraphError: if it holds none.

        """
        self._library(record.slo_class).restore(record, now_s)

    def _forecast(self, program: RunningProgram, call: Call, now_s: float) -> Forecast:
        library = self._libraries.get(program.slo.name)
        matches = library.match(program.prefix(call.stage), call.stage) if library else None
        due_s = program.due_s(call.stage)
        found = forecast(matches, call, program.slo, self.pace_s, now_s, due_s) if matches else unmatched(call)
        tools_s = float(matches.weight @ matches.tool_after_s) if matches else 0.0
        return replace(found, tools=program.runs_tools or tools_s > A_TOOL_S * found.stages_left)

    def _library(self, slo_class: str) -> GraphLibrary:
        if slo_class not in self._libraries:
            self._libraries[slo_class] = GraphLibrary(slo_class, self._capacity)
        return self._libraries[slo_class]

    def _touch(self, name: str, program: RunningProgram, now_s: float) -> None:
        program.touched_s = now_s
        self._programs.move_to_end(name)
