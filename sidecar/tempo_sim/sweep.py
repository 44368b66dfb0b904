"""Many runs: every policy at every load with every seed, each on the same units, over all cores."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from tempo_core.graphs import PatternGraphs
from tempo_core.policies import POLICIES
from tempo_core.slo import SLOClass
from tempo_core.snapshot import Settings
from tempo_sim.capacity import capacity_per_s
from tempo_sim.lengths import OracleLengths
from tempo_sim.profiles import EngineProfile
from tempo_sim.rows import Row, rows
from tempo_sim.run import simulate
from tempo_sim.workload import SimUnit

ORACLE: Final = "oracle-lengths"
"""Tempo, told how long every answer will be; what is still to come of a program it does not know."""

GRAPHS: Final = "tempo-graphs"
"""Tempo, with sub-deadlines from pattern graphs instead of the classes' own."""

NAMES: Final = (*POLICIES, GRAPHS, ORACLE)
"""What can be compared."""

_CAPACITY_UNITS: Final = 600.0
_CAPACITY_SEED: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is compared.

    Attributes:
        workload: the units that arrive at a rate, in a time, with a seed. It has to travel to other processes, so it is
            a function of a module, or a partial of one.
        label: what the workload is called in the rows.
        classes: by name.
        profile: every replica's engine.
        policies: of `NAMES`.
        loads: multiples of the capacity of all replicas.
        seconds: how long units arrive; all are followed to their end.
        seeds: one run each.
        replicas: numbers of them to try.
        settings: the policies'.
        rate_per_s: units a second that are load 1.0; None: measured, for one replica, times the replicas.

    """

    workload: Callable[[float, float, int], Sequence[SimUnit]]
    label: str
    classes: Mapping[str, SLOClass]
    profile: EngineProfile
    policies: Sequence[str] = ("sarathi", "tempo")
    loads: Sequence[float] = (0.5, 1.0, 1.5)
    seconds: float = 300.0
    seeds: Sequence[int] = (1, 2, 3)
    replicas: Sequence[int] = (1,)
    settings: Settings = field(default_factory=Settings)
    rate_per_s: float | None = None

    @property
    def cases(self) -> list["Case"]:
        """Every run, the dearest first, so that no core is left with them at the end."""
        loads = sorted(self.loads, reverse=True)
        return [Case(*case) for case in product(loads, self.seeds, self.replicas, self.policies)]


@dataclass(frozen=True, slots=True)
class Case:
    """One run."""

    load: float
    seed: int
    replicas: int
    policy: str


def capacity(sweep: Sweep) -> float:
    """Units a second that are load 1.0 for one replica."""
    if sweep.rate_per_s is not None:
        return sweep.rate_per_s
    units = sweep.workload(_CAPACITY_UNITS, 1.0, _CAPACITY_SEED)
    return capacity_per_s(units, sweep.classes, sweep.profile)


def run(sweep: Sweep, capacity_per_s: float, jobs: int | None = None) -> Iterator[list[Row]]:
    """The rows of each case, as they are done, in any order.

    Raises:
        ValueError: for a policy that there is not, or units that can't be served.

    """
    if unknown := [name for name in sweep.policies if name not in NAMES]:
        raise ValueError(f"{unknown[0]!r} is not a policy; there are {', '.join(NAMES)}")
    with ProcessPoolExecutor(jobs or os.cpu_count()) as pool:
        pending = [pool.submit(_one, sweep, case, capacity_per_s) for case in sweep.cases]
        try:
            for done in as_completed(pending):
                yield done.result()
        finally:
            for left in pending:
                left.cancel()


def _one(sweep: Sweep, case: Case, capacity_per_s: float) -> list[Row]:
    fixed = sweep.rate_per_s is not None  # the same traffic for more replicas: how many does it take?
    rate = case.load * capacity_per_s * (1 if fixed else case.replicas)
    units = sweep.workload(rate, sweep.seconds, case.seed)
    result = simulate(
        units,
        sweep.classes,
        POLICIES["tempo" if case.policy in {GRAPHS, ORACLE} else case.policy],
        sweep.profile,
        replicas=case.replicas,
        settings=sweep.settings,
        lengths=OracleLengths() if case.policy == ORACLE else None,
        graphs=PatternGraphs() if case.policy == GRAPHS else None,
    )
    made = rows(result, load=f"{case.load:g}", policy=case.policy, seed=case.seed)
    hard = all(slo.gain.hard for slo in sweep.classes.values())
    more = {"trace": sweep.label, "decay": "hard" if hard else "soft", "replicas": case.replicas, "rate_per_s": rate}
    return [{**row, **more} for row in made]
