"""Which replica a request goes to: the one that is expected to finish it soonest."""

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple


class Replica(NamedTuple):
    """What the router knows of one replica."""

    name: str
    ready: bool
    outstanding_tokens: float
    """Tokens that the requests in flight there are still expected to need, prompt tokens discounted to output's."""
    tokens_per_s: float
    """How fast it can go, all requests together."""
    holds_program: bool = False
    """Whether it served the program's earlier calls, whose prefixes it may still have."""


AFFINITY_S: Final = 0.5
"""Seconds of expected delay that a program's warm prefix is worth."""


def route(replicas: Iterable[Replica], tokens: float, excluded: Collection[str] = ()) -> Replica | None:
    """The ready replica with the least expected delay for a request of `tokens` more tokens, or None.

    Ties go to the first; `excluded` names those that were tried already.
    """

    def delay_s(replica: Replica) -> float:
        work_s = (replica.outstanding_tokens + tokens) / max(replica.tokens_per_s, 1e-9)
        return work_s - AFFINITY_S * replica.holds_program

    candidates = [replica for replica in replicas if replica.ready and replica.name not in excluded]
    return min(candidates, key=delay_s, default=None)
