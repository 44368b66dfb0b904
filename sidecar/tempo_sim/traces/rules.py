"""Which SLO class a unit of a trace gets; a rule is a function, and says what it could not do as a ValueError."""

from collections.abc import Callable, Mapping
from random import Random

from tempo_core.slo import Pattern, SLOClass
from tempo_sim.traces.draft import Draft

Rule = Callable[[Draft, Random], str]
"""The class of a unit, by name; the randomness is the trace's seed's."""


def by_pattern(classes: Mapping[str, SLOClass]) -> Rule:
    """The default: programs to the collective classes, single calls to the others, evenly where there are several.

    Where all classes are collective, single calls are programs of one.
    """
    collective = [name for name, slo in classes.items() if slo.pattern is Pattern.COLLECTIVE]
    others = [name for name, slo in classes.items() if slo.pattern is not Pattern.COLLECTIVE]

    def rule(draft: Draft, random: Random) -> str:
        names = collective if draft.program else others or collective
        if not names:
            raise ValueError(f"is a program, and none of the classes {', '.join(classes)} is Collective; add one")
        return random.choice(names)

    return rule


def by_shares(shares: Mapping[str, float]) -> Rule:
    """Classes at random in these proportions, whatever the unit is."""
    names, weights = list(shares), list(shares.values())
    if min(weights, default=0.0) < 0.0 or not sum(weights) > 0.0:
        raise ValueError("shares need a class with a share above 0, and none below")

    def rule(draft: Draft, random: Random) -> str:  # noqa: ARG001  # the signature of a rule
        return random.choices(names, weights)[0]

    return rule


def by_label(column: str, classes: Mapping[str, str], otherwise: str | None = None) -> Rule:
    """The class that `classes` names for what a text field of the unit's first row says."""

    def rule(draft: Draft, random: Random) -> str:  # noqa: ARG001  # the signature of a rule
        if column not in draft.labels:
            raise ValueError(f"has no column {column!r}, only {', '.join(draft.labels) or 'none'}")
        value = draft.labels[column]
        found = classes.get(value, otherwise)
        if found is None:
            raise ValueError(f"no class is named for {column} {value!r}; name one, or one for all others")
        return found

    return rule
