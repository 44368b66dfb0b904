"""What an engine can do with a mix: units a second at saturation, under first come first served."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from tempo_core.policies import POLICIES
from tempo_core.slo import SLOClass
from tempo_sim.profiles import EngineProfile
from tempo_sim.run import simulate
from tempo_sim.workload import SimUnit

_BULK: Final = 0.95
"""The share of the work after which the engine may be running empty: a few long answers are left."""


def capacity_per_s(units: Sequence[SimUnit], classes: Mapping[str, SLOClass], profile: EngineProfile) -> float:
    """Units a second that one replica serves while it is full; `units` is a sample of the mix, at least one.

    All are there at once and served in order of arrival, so programs advance together and the engine stays full almost
    to the end; what their clients do between two calls takes no time. The time that the bulk of the work took gives the
    rate.
    """
    result = simulate([_at_once(unit) for unit in units], classes, POLICIES["sarathi"], profile)
    total = done = float(sum(unit.prompt_tokens + unit.output_tokens for unit in result.units))
    ended_s = result.duration_s
    for unit in sorted(result.units, key=lambda unit: unit.ended_s, reverse=True):
        if done < _BULK * total:
            break
        ended_s = unit.ended_s
        done -= unit.prompt_tokens + unit.output_tokens
    return len(units) * done / total / ended_s


def _at_once(unit: SimUnit) -> SimUnit:
    stages = tuple(tuple(replace(call, delay_s=0.0) for call in stage) for stage in unit.stages)
    return replace(unit, at_s=0.0, stages=stages)
