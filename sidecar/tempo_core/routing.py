"""Which replica a request goes to: the one that is expected to start and finish it soonest."""

from collections.abc import Sequence
from typing import NamedTuple


class Replica(NamedTuple):
    """What the router knows of one replica."""

    name: str
    ready: bool
    outstanding_tokens: float
    """Tokens that the requests in flight there are still expected to need, prompt tokens discounted to output's."""
    tokens_per_s: float
    """How fast it has been lately, all requests together."""
    holds_program: bool = False
    """Whether it served the program's earlier calls, whose prefixes it may still have."""


AFFINITY_S = 0.5
"""Seconds of expected delay that a program's warm prefix is worth."""


def route(replicas: Sequence[Replica], excluded: Sequence[str] = ()) -> Replica | None:
    """The ready replica with the least expected delay, or None. Ties go to the first; `excluded` were tried already."""
    candidates = [replica for replica in replicas if replica.ready and replica.name not in excluded]
    return min(candidates, key=_delay_s, default=None)


def _delay_s(replica: Replica) -> float:
    return replica.outstanding_tokens / max(replica.tokens_per_s, 1e-9) - AFFINITY_S * replica.holds_program
