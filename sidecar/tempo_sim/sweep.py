"""Many runs: every policy at every load with every seed, each on the same units, over all cores."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, product
from typing import Final, NamedTuple

from tempo_core.policies import Policy
from tempo_core.slo import SLOClass
from tempo_core.snapshot import Settings
from tempo_sim.capacity import capacity_per_s
from tempo_sim.contenders import CONTENDERS
from tempo_sim.lengths import WindowLengths
from tempo_sim.profiles import EngineProfile
from tempo_sim.routers import DIRECT, ROUTERS
from tempo_sim.rows import Row, rows
from tempo_sim.run import SimResult, simulate
from tempo_sim.scenarios import NONE, SCENARIOS
from tempo_sim.timeline import Timeline, Watched
from tempo_sim.workload import SimUnit

_CAPACITY_UNITS: Final = 600.0
_CAPACITY_CALLS: Final = 3000
"""Long programs fill an engine with fewer units."""
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
        policies: of `CONTENDERS`.
        loads: multiples of the capacity of all replicas.
        seconds: how long units arrive; all are followed to their end.
        seeds: one run each.
        replicas: numbers of them to try.
        settings: the policies'.
        scenarios: of `SCENARIOS`; capacity is measured without.
        routers: of `tempo_sim.routers.ROUTERS`; each in front of replicas with each policy.
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
    scenarios: Sequence[str] = (NONE,)
    routers: Sequence[str] = (DIRECT,)
    rate_per_s: float | None = None

    @property
    def cases(self) -> list["Case"]:
        """Every run, the dearest first, so that no core is left with them at the end."""
        loads = sorted(self.loads, reverse=True)
        of = product(loads, self.seeds, self.replicas, self.routers, self.policies, self.scenarios)
        return [Case(*case) for case in of]


@dataclass(frozen=True, slots=True)
class Case:
    """One run."""

    load: float
    seed: int
    replicas: int
    router: str
    policy: str
    scenario: str

    @property
    def contender(self) -> str:
        """What the rows call it: the policy, with the router where there is one of note."""
        return self.policy if self.router == DIRECT else f"{self.router}/{self.policy}"


class Done(NamedTuple):
    """What came of a case."""

    rows: list[Row]
    timeline: Timeline | None
    """Only of runs at the highest load, with the first seed, replicas, router and scenario, and with a unit."""


def capacity(sweep: Sweep) -> float:
    """Units a second that are load 1.0 for one replica."""
    if sweep.rate_per_s is not None:
        return sweep.rate_per_s
    units = sweep.workload(_CAPACITY_UNITS, 1.0, _CAPACITY_SEED)
    calls = accumulate(len(unit.calls) for unit in units)
    sample = [unit for unit, before in zip(units, chain((0,), calls), strict=False) if before < _CAPACITY_CALLS]
    return capacity_per_s(sample, sweep.classes, sweep.profile)


def run(sweep: Sweep, capacity_per_s: float, jobs: int | None = None) -> Iterator[Done]:
    """What came of each case, as they are done, in any order.

    Raises:
        ValueError: for a policy or a scenario that there is not, or units that can't be served.

    """
    if unknown := [name for name in sweep.scenarios if name not in SCENARIOS]:
        raise ValueError(f"{unknown[0]!r} is not a scenario; there are {', '.join(SCENARIOS)}")
    if unknown := [name for name in sweep.policies if name not in CONTENDERS]:
        raise ValueError(f"{unknown[0]!r} is not a policy; there are {', '.join(CONTENDERS)}")
    with ProcessPoolExecutor(jobs or os.cpu_count()) as pool:
        pending = [pool.submit(_one, sweep, case, capacity_per_s) for case in sweep.cases]
        try:
            for done in as_completed(pending):
                yield done.result()
        finally:
            for left in pending:
                left.cancel()


def _one(sweep: Sweep, case: Case, capacity_per_s: float) -> Done:
    watched = Watched(CONTENDERS[case.policy].policy) if case in _shown(sweep) else None
    result = _simulated(sweep, case, capacity_per_s, watched or CONTENDERS[case.policy].policy)
    hard = all(slo.gain.hard for slo in sweep.classes.values())
    labels: Row = {
        "trace": sweep.label,
        "decay": "hard" if hard else "soft",
        "scenario": case.scenario,
        "replicas": case.replicas,
        "router": case.router,
        "rate_per_s": _rate_per_s(sweep, case, capacity_per_s),
    }
    made = rows(result, load=f"{case.load:g}", policy=case.contender, seed=case.seed)
    timeline = watched.timeline(case.policy, result.units) if watched and result.units else None
    return Done([{**row, **labels} for row in made], timeline)


def _shown(sweep: Sweep) -> list[Case]:
    first = Case(max(sweep.loads), sweep.seeds[0], sweep.replicas[0], sweep.routers[0], "", sweep.scenarios[0])
    return [replace(first, policy=policy) for policy in sweep.policies]


def _simulated(sweep: Sweep, case: Case, capacity_per_s: float, policy: Policy) -> SimResult:
    """The run, and in it the workload's own units: what a scenario adds is not what is measured."""
    units = sweep.workload(_rate_per_s(sweep, case, capacity_per_s), sweep.seconds, case.seed)
    scenario = SCENARIOS[case.scenario]
    classes = scenario.classes(sweep.classes)
    told = CONTENDERS[case.policy]
    lengths = scenario.lengths(WindowLengths(), case.seed)
    graphs = told.graphs or scenario.graphs
    result = simulate(
        scenario.units(units, classes, case.seed),
        classes,
        policy,
        sweep.profile,
        replicas=case.replicas,
        settings=sweep.settings,
        lengths=told.lengths(lengths) if told.lengths else lengths,
        graphs=graphs(units) if told.knows_programs else None,
        router=ROUTERS[case.router],
    )
    own = {unit.id for unit in units}
    return replace(result, units=tuple(unit for unit in result.units if unit.id in own))


def _rate_per_s(sweep: Sweep, case: Case, capacity_per_s: float) -> float:
    fixed = sweep.rate_per_s is not None  # the same traffic for more replicas: how many does it take?
    return case.load * capacity_per_s * (1 if fixed else case.replicas)
