"""Predictions that are wrong in a known way, to see how much a policy depends on them."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from statistics import fmean
from typing import Final

from tempo_core.gain import Outcome
from tempo_core.graphs import Forecast, PatternGraphs, Record
from tempo_core.programs import Call
from tempo_core.slo import SLOClass
from tempo_sim.lengths import Grid, LengthModel
from tempo_sim.workload import SimCall, SimUnit

_REMEMBERED: Final = 256


class ScaledLengths:
    """Another model's quantiles, all of them this many times as long; at least a token, at most `max_tokens`."""

    def __init__(self, lengths: LengthModel, scale: float) -> None:
        self._lengths = lengths
        self._scale = scale

    def predict(self, unit_class: str, call: SimCall) -> Grid:
        """See `LengthModel`."""
        grid = self._lengths.predict(unit_class, call)
        return tuple(min(max(self._scale * tokens, 1.0), float(call.max_tokens)) for tokens in grid)

    def learn(self, unit_class: str, call: SimCall) -> None:
        """What is learned is true; only what is made of it is not."""
        self._lengths.learn(unit_class, call)


class UnrelatedLengths:
    """What another model says of a call drawn from the latest that came before, of whatever class."""

    def __init__(self, lengths: LengthModel, seed: int) -> None:
        self._lengths = lengths
        self._random = Random(f"{seed} lengths")  # noqa: S311  # reproducible on purpose
        self._seen: list[tuple[str, SimCall]] = []

    def predict(self, unit_class: str, call: SimCall) -> Grid:
        """See `LengthModel`."""
        other_class, other = self._random.choice(self._seen or [(unit_class, call)])
        if len(self._seen) == _REMEMBERED:
            self._seen.pop(0)
        self._seen.append((unit_class, call))
        return tuple(min(tokens, float(call.max_tokens)) for tokens in self._lengths.predict(other_class, other))

    def learn(self, unit_class: str, call: SimCall) -> None:
        """What is learned is true; only whom it is said of is not."""
        self._lengths.learn(unit_class, call)


class OtherKindsGraphs(PatternGraphs):
    """Pattern graphs in which programs find only those of another kind.

    There are two kinds: programs of more stages than the mean, and of fewer. (In the paper's mix deep research and
    trees of thoughts.) `_taught` has every program under its own kind; what it learns is stored here, where programs
    are looked up under the other kind, and none is learned from as it ends.
    """

    def __init__(self, units: Sequence[SimUnit]) -> None:
        super().__init__()
        self._taught = PatternGraphs()
        programs = [unit for unit in units if len(unit.calls) > 1]
        mean = fmean(len(unit.stages) for unit in programs) if programs else 0.0
        self._long = {unit.id for unit in programs if len(unit.stages) > mean}

    def begin(self, call: Call, slo: SLOClass, prompt_tokens: int, now_s: float, *, final: bool = False) -> Forecast:
        """See `PatternGraphs`."""
        long = call.program in self._long
        self._taught.begin(call, _of_kind(slo, long=long), prompt_tokens, now_s, final=final)
        return super().begin(call, _of_kind(slo, long=not long), prompt_tokens, now_s)

    def end(self, call: Call, outcome: Outcome, now_s: float) -> Record | None:
        """See `PatternGraphs`; the program itself stays, and is forgotten as the longest idle one."""
        super().end(call, outcome, now_s)
        record = self._taught.end(call, outcome, now_s)
        if record:
            self.restore(record, now_s)
        return record


def _of_kind(slo: SLOClass, *, long: bool) -> SLOClass:
    return replace(slo, name=f"{slo.name}, {'long' if long else 'short'}")
