"""Where a sweep's units come from: the paper's mix, or a trace. Each is a `Source` that travels to other processes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Final

from tempo_core.slo import SLOClass
from tempo_sim.arrivals import Arrivals, Poisson
from tempo_sim.paper_workload import PaperSpec, paper_workload
from tempo_sim.traces import Options, at_rate, read_trace
from tempo_sim.workload import SimUnit

Source = Callable[[float, float, int], Sequence[SimUnit]]
"""The units that arrive at a rate (units/s), within a time (s), with a seed; in order of arrival."""

_POISSON: Final = Poisson()
_GOLDEN: Final = 0.6180339887
"""Its multiples, less their whole parts, are spread evenly however many there are."""
_ROUND: Final = 48
"""Bits beyond those that identities of blocks need."""


def paper(arrivals: Arrivals = _POISSON) -> Source:
    """The paper's mix."""
    return partial(_paper, arrivals)


def trace(path: Path, classes: Mapping[str, SLOClass], options: Options) -> Source:
    """A trace at any rate, from a place in it that the seed chooses; after its end it goes on from its start.

    Raises:
        TraceError: see `read_trace`.

    """
    named = tuple(classes.items())
    _read(path, named, options)  # whatever is wrong with it is said before anything runs
    return partial(_window, path, named, options)


def _paper(arrivals: Arrivals, rate_per_s: float, seconds: float, seed: int) -> Sequence[SimUnit]:
    return paper_workload(PaperSpec(rate_per_s, seconds, seed, arrivals))


@lru_cache(maxsize=1)
def _read(path: Path, classes: tuple[tuple[str, SLOClass], ...], options: Options) -> Sequence[SimUnit]:
    """Each process reads a trace once: its units are more than one would send with every case."""
    return read_trace(path, classes=dict(classes), options=options)


def _window(
    path: Path,
    classes: tuple[tuple[str, SLOClass], ...],
    options: Options,
    rate_per_s: float,
    seconds: float,
    seed: int,
) -> Sequence[SimUnit]:
    return list(window(_read(path, classes, options), rate_per_s, seconds, seed))


def window(units: Sequence[SimUnit], rate_per_s: float, seconds: float, seed: int) -> Iterator[SimUnit]:
    """Of these units, at a rate, those that arrive in some seconds; as often as it takes, under new names.

    Raises:
        ValueError: see `at_rate`.

    """
    faster = at_rate(units, rate_per_s)
    length_s = len(units) / rate_per_s
    start_s = _GOLDEN * seed % 1.0 * (length_s - seconds if seconds < length_s else length_s)
    for number in count():
        for unit in faster:
            at_s = unit.at_s + number * length_s - start_s
            if at_s >= seconds:
                return
            if at_s >= 0.0:
                yield replace(_again(unit, number) if number else unit, at_s=at_s)


def _again(unit: SimUnit, number: int) -> SimUnit:
    """The same once more, of which nothing is in the cache."""
    shift = number << _ROUND
    stages = tuple(
        tuple(replace(call, prefix=tuple(block + shift for block in call.prefix)) for call in stage)
        for stage in unit.stages
    )
    return replace(unit, id=f"{unit.id}~{number}", stages=stages)
