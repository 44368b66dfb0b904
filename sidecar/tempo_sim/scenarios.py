"""What goes wrong in a run, by name: predictions, promises, arrivals, a tenant, or the history of programs.

Every policy meets it alike, and what is measured is measured of the workload's own units. The oracle goes on to know
every length.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from random import Random
from types import MappingProxyType
from typing import Final

from tempo_core.graphs import PatternGraphs
from tempo_core.slo import Objectives, Pattern, SLOClass
from tempo_sim.arrivals import Bursts
from tempo_sim.lengths import LengthModel
from tempo_sim.workload import SimCall, SimUnit
from tempo_sim.wrong import OtherKindsGraphs, ScaledLengths, UnrelatedLengths

Classes = Mapping[str, SLOClass]
Units = Sequence[SimUnit]

NONE: Final = "none"

TENANTS: Final = 10
"""Honest tenants, each with the same share of the units, where there is an adversary."""
ADVERSARY: Final = "adversary"
ATTACK: Final = SimCall(prompt_tokens=512, output_tokens=16, max_tokens=16)
"""Little engine time and many prompt tokens: what policies that weigh gain, or lengths, against time like best."""


def _same_units(units: Units, classes: Classes, seed: int) -> Units:  # noqa: ARG001  # see `Scenario`
    return units


def _same_lengths(lengths: LengthModel, seed: int) -> LengthModel:  # noqa: ARG001  # see `Scenario`
    return lengths


def _own_graphs(units: Units) -> PatternGraphs:  # noqa: ARG001  # see `Scenario`
    return PatternGraphs()


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is changed; each part leaves everything as it is by default."""

    units: Callable[[Units, Classes, int], Units] = _same_units
    """What arrives instead, in order, by the seed."""
    lengths: Callable[[LengthModel, int], LengthModel] = _same_lengths
    """What predicts instead, by the seed."""
    graphs: Callable[[Units], PatternGraphs] = _own_graphs
    """What sets sub-deadlines where pattern graphs do."""
    slo_scale: float = 1.0
    """All objectives are this many times as long."""

    def classes(self, classes: Classes) -> Classes:
        """The promises that are made."""
        return {name: replace(slo, objectives=_scaled(slo.objectives, self.slo_scale)) for name, slo in classes.items()}


def bursts(units: Units, classes: Classes, seed: int, *, cv: float = 3.0) -> Units:  # noqa: ARG001  # see `Scenario`
    """The same units in the same time, with gamma gaps whose deviation is `cv` times their mean."""
    random = Random(f"{seed} bursts")  # noqa: S311  # reproducible on purpose
    gaps = Bursts(cv).gaps(random, 1.0)
    times = list(accumulate(next(gaps) for _ in units))
    return [replace(unit, at_s=at_s * units[-1].at_s / times[-1]) for unit, at_s in zip(units, times, strict=True)]


def adversary(units: Units, classes: Classes, seed: int) -> Units:
    """The units dealt to `TENANTS` tenants, and another that sends ten requests for each unit of all of these.

    They are `ATTACK`, of the classes for single calls in turn, and arrive at random. Each tenant sends a hundredth of
    that, in requests; in engine time the attack adds about a quarter to the paper's mix.
    """
    random = Random(f"{seed} adversary")  # noqa: S311  # reproducible on purpose
    names = [name for name, slo in classes.items() if slo.pattern is not Pattern.COLLECTIVE] or list(classes)
    honest = [replace(unit, tenant=f"tenant-{i % TENANTS}") for i, unit in enumerate(units)]
    attack = [
        SimUnit(f"{ADVERSARY}/{i}", names[i % len(names)], random.uniform(0.0, units[-1].at_s), ((ATTACK,),), ADVERSARY)
        for i in range(10 * len(units))
    ]
    return sorted(honest + attack, key=lambda unit: unit.at_s)


SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        NONE: Scenario(),
        "lengths-half": Scenario(lengths=lambda lengths, _: ScaledLengths(lengths, 0.5)),
        "lengths-double": Scenario(lengths=lambda lengths, _: ScaledLengths(lengths, 2.0)),
        "lengths-random": Scenario(lengths=UnrelatedLengths),
        "slo-half": Scenario(slo_scale=0.5),
        "slo-double": Scenario(slo_scale=2.0),
        "slo-quadruple": Scenario(slo_scale=4.0),
        "bursts": Scenario(units=bursts),
        "adversary": Scenario(units=adversary),
        "wrong-graphs": Scenario(graphs=OtherKindsGraphs),
    }
)
"""By name."""


def _scaled(objectives: Objectives, scale: float) -> Objectives:
    return Objectives(
        ttft_s=objectives.ttft_s * scale,
        tbt_s=objectives.tbt_s * scale,
        ttlt_s=objectives.ttlt_s * scale,
        end_to_end_s=objectives.end_to_end_s * scale,
        per_stage_s=objectives.per_stage_s * scale,
    )
