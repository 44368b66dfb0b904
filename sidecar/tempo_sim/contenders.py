"""What can be compared, by name: each policy as it ships, Tempo without one of its parts, and an oracle.

All are told the same: length quantiles learned as the run goes, and what pattern graphs say of programs. Only the
oracle is told the truth instead.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from tempo_core.policies import POLICIES, Policy
from tempo_core.snapshot import Plan, Snapshot
from tempo_sim.lengths import LengthModel, OracleLengths, PointLengths, UnknownLengths
from tempo_sim.programs import GraphModel, OracleGraphs
from tempo_sim.workload import SimUnit

TEMPO: Final = "tempo"
ORACLE: Final = "oracle"
"""Tempo, told how long every answer will be, and what is still to come of every program."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy, and what it is told instead of what is learned."""

    policy: Policy
    lengths: Callable[[LengthModel], LengthModel] | None = None
    graphs: Callable[[Sequence[SimUnit]], GraphModel] | None = None
    knows_programs: bool = True


def _without_budgets(snapshot: Snapshot, now_s: float) -> Plan:
    """Every step as large as the engine allows, whatever the streams' pace."""
    plan = _TEMPO(snapshot, now_s)
    return replace(plan, token_budget=snapshot.max_step_tokens, max_running=snapshot.max_running)


def _without_preemption(snapshot: Snapshot, now_s: float) -> Plan:
    return replace(_TEMPO(snapshot, now_s), preempt=())


def _without_cache(snapshot: Snapshot, now_s: float) -> Plan:
    """What the cache would save those who wait is not known."""
    entries = [entry if entry.running else entry._replace(computed=0) for entry in snapshot.entries]
    return _TEMPO(replace(snapshot, entries=entries), now_s)


_TEMPO: Final = POLICIES[TEMPO]

ABLATIONS: Final[Mapping[str, Contender]] = MappingProxyType(
    {
        "tempo-no-lengths": Contender(_TEMPO, lengths=UnknownLengths),
        "tempo-no-refinement": Contender(_TEMPO, lengths=PointLengths),
        "tempo-no-graphs": Contender(_TEMPO, knows_programs=False),
        "tempo-no-budgets": Contender(_without_budgets),
        "tempo-no-preemption": Contender(_without_preemption),
        "tempo-no-cache": Contender(_without_cache),
    }
)
"""Tempo without one of its parts."""

CONTENDERS: Final[Mapping[str, Contender]] = MappingProxyType(
    {
        **{name: Contender(policy) for name, policy in POLICIES.items()},
        ORACLE: Contender(_TEMPO, lengths=lambda _: OracleLengths(), graphs=OracleGraphs),
        **ABLATIONS,
    }
)
"""By name; those of `ABLATIONS` come last."""

GROUPS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "all": tuple(name for name in CONTENDERS if name not in ABLATIONS),
        "ablation": ("fcfs", TEMPO, *ABLATIONS),
    }
)
"""Several by one name."""
