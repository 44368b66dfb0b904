"""A whole run: a workload, a policy and an engine in; what every unit got out. A pure function of its arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tempo_core.policies import Policy
from tempo_core.slo import Pattern, SLOClass
from tempo_core.snapshot import Settings
from tempo_sim.batch import Counts
from tempo_sim.engine import Replica
from tempo_sim.fleet import Fleet
from tempo_sim.lengths import LengthModel, WindowLengths, answer_tokens
from tempo_sim.profiles import EngineProfile
from tempo_sim.programs import GraphModel
from tempo_sim.routers import DIRECT, ROUTERS, RouterKind
from tempo_sim.units import UnitResult
from tempo_sim.workload import BLOCK_TOKENS, SimUnit

_SETTINGS: Final = Settings()


@dataclass(frozen=True, slots=True)
class SimResult:
    """What came of a run."""

    units: tuple[UnitResult, ...]
    """In the order of the workload."""
    duration_s: float
    """From the start until the last token."""
    output_tokens: int
    replicas: tuple[Counts, ...]
    """What each replica did."""

    @property
    def steps(self) -> int:
        """Of all replicas."""
        return sum(counts.steps for counts in self.replicas)

    @property
    def passes(self) -> int:
        """Times that the policy was asked."""
        return sum(counts.passes for counts in self.replicas)

    @property
    def preemptions(self) -> int:
        """By plan, and for want of memory."""
        return sum(counts.planned_preemptions + counts.memory_preemptions for counts in self.replicas)


def simulate(  # noqa: PLR0913  # four facts, and options by keyword
    workload: Sequence[SimUnit],
    classes: Mapping[str, SLOClass],
    policy: Policy,
    profile: EngineProfile,
    *,
    replicas: int = 1,
    settings: Settings = _SETTINGS,
    lengths: LengthModel | None = None,
    graphs: GraphModel | None = None,
    frame_steps: int = 20,
    block_tokens: int = BLOCK_TOKENS,
    coasting: bool = True,
    router: RouterKind = ROUTERS[DIRECT],
) -> SimResult:
    """Serve all units of a workload to their end.

    Args:
        workload: the units, in any order.
        classes: by the names that the units give.
        policy: schedules every replica.
        profile: every replica's engine.
        replicas: how many there are.
        settings: the policy's.
        lengths: what predicts output lengths; by default they are learned as the run goes.
        graphs: says what is to come of programs, and learns from those that end; None: their classes' rules stand.
        frame_steps: steps between two passes of the policy, where nothing changes.
        block_tokens: tokens in a block of the workload's prefixes. An identity stands for all tokens up to its block's
            end, so that the engine's blocks can be larger.
        coasting: see `tempo_sim.engine`; the result does not depend on it.
        router: in front of the replicas.

    Raises:
        ValueError: naming the unit that can't be served, or the argument that makes no sense.

    """
    if replicas < 1:
        raise ValueError(f"a run needs a replica, not {replicas}")
    if profile.block_size % block_tokens:
        raise ValueError(f"{profile.name} has blocks of {profile.block_size} tokens, no multiple of {block_tokens}")
    _check(workload, classes, profile)
    engines = [Replica(profile, policy, settings, frame_steps=frame_steps, coasting=coasting) for _ in range(replicas)]
    lengths = WindowLengths() if lengths is None else lengths
    units = Fleet(workload, classes, engines, profile, lengths, block_tokens, graphs, router.make(settings)).serve()
    return SimResult(
        units=units,
        duration_s=max((unit.ended_s for unit in units), default=0.0),
        output_tokens=sum(unit.output_tokens for unit in units),
        replicas=tuple(engine.counts for engine in engines),
    )


def _check(workload: Sequence[SimUnit], classes: Mapping[str, SLOClass], profile: EngineProfile) -> None:
    seen: set[str] = set()
    for unit in workload:
        problem = "has the id of another" if unit.id in seen else _class_problem(unit, classes)
        problem = problem or _call_problem(unit, profile)
        if problem:
            raise ValueError(f"unit {unit.id!r} {problem}")
        seen.add(unit.id)


def _class_problem(unit: SimUnit, classes: Mapping[str, SLOClass]) -> str | None:
    slo = classes.get(unit.slo_class)
    if slo is None:
        return f"is of class {unit.slo_class!r}; there are {', '.join(sorted(classes))}"
    if len(unit.calls) > 1 and slo.pattern is not Pattern.COLLECTIVE:
        return f"has {len(unit.calls)} calls, which takes a Collective class; {slo.name!r} is {slo.pattern.value}"
    return None


def _call_problem(unit: SimUnit, profile: EngineProfile) -> str | None:
    if not unit.stages or not all(unit.stages):
        return "has no calls, or a stage without any"
    for call in unit.calls:
        if min(call.prompt_tokens, call.output_tokens, call.max_tokens) < 1:
            return "has a call without a token in or out"
        if call.prompt_tokens + answer_tokens(call) > profile.kv_tokens:
            return f"has a call that is longer than the {profile.kv_tokens} tokens that {profile.name} can hold"
    return None
