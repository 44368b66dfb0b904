"""Which replica a request goes to: where it earns most, and takes least from others."""

from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import Final, NamedTuple

from tempo_core.gain import fade
from tempo_core.slo import Pattern, SLOClass
from tempo_core.steptime import StepTime


class Replica(NamedTuple):
    """What the router knows of one replica."""

    name: str
    ready: bool
    outstanding_tokens: float
    """Tokens that the requests in flight there are still expected to need, prompt tokens discounted to output's."""
    tokens_per_s: float
    """How fast it can go, all requests together."""
    holds_program: bool = False
    """Whether it served the program's earlier calls, and so knows what is still to come of it."""
    in_flight: int = 0
    """Requests there, of all routers."""
    places: int = 0
    """Requests that run there together; 0: unknown."""
    waiting: int = 0
    """Requests there that wait for one."""
    cache_used: float = 0.0
    """Share of its key-value cache that is taken."""
    stale: bool = False
    """Whether it has said nothing of itself for too long; that is not the same as being full."""
    prefix_tokens: float = 0.0
    """Tokens of this request's prompt that it has served before, and probably still has in its cache."""
    step: StepTime | None = None
    """How long its steps take, where it says so."""
    ranks: bool = False
    """Whether its engine orders its own queue by what waiting loses, as `tempo_core.admission` does."""


class Demand(NamedTuple):
    """What the choice depends on of a request."""

    slo: SLOClass
    prompt_tokens: float
    output_tokens: float
    """Expected."""
    elapsed_s: float = 0.0
    """Since its arrival; for a program's call, since the program's."""
    deadline_s: float = inf
    """What it has been granted from there, where its pattern has a deadline."""


PROMPT_SHARE: Final = 0.1
"""A prompt token's work, in output tokens: prefill is batched, decoding goes token by token."""
LOOKAHEAD: Final = 1 / 32
"""Requests beyond its places that a replica is given, as a share of them and at least one, so that a place that falls
free is taken at once. No more: behind the places it is first come first served."""
RANKED_LOOKAHEAD: Final = 4.0
"""The same where the engine ranks. It knows more of each request, and may choose at the moment when a place falls free;
who is held here has to wait for two such moments, which is too long for a stream where requests are long and few."""
_FULL: Final = 0.95
"""Share of the key-value cache beyond which one request more would take another's place."""
_BACKLOG_PRICE: Final = 0.05
"""What a second of backlog costs those behind it, as a share of what the request earns in a second of service."""
_HOME_S: Final = 0.5
"""Seconds of backlog that it is worth to leave a program where its earlier calls were."""
_FEW: Final = 16
"""Replicas that are all looked at; of more, as many as promise to have the prompt's prefix, and two at random."""


def room(replica: Replica, *, crowds: bool = False) -> float:
    """How many requests more it can put to use; inf where it does not say how many it runs.

    Of a tenant that crowds (`tempo_core.crowds`) no more than where engines do not rank.
    """
    if not replica.places:
        return inf
    if replica.cache_used > _FULL and replica.waiting:
        return 0.0
    share = RANKED_LOOKAHEAD if replica.ranks and not crowds else LOOKAHEAD
    return max(replica.places + max(int(share * replica.places), 1) - replica.in_flight, 0)


def work_tokens(prompt_tokens: float, output_tokens: float) -> float:
    """What a request takes of an engine, in output tokens."""
    return output_tokens + PROMPT_SHARE * prompt_tokens


def candidates(replicas: Sequence[Replica], excluded: Collection[str] = ()) -> list[Replica]:
    """Those that may be chosen: ready, not tried before, and as long as there are such, not stale."""
    ready = [replica for replica in replicas if replica.ready and replica.name not in excluded]
    return [replica for replica in ready if not replica.stale] or ready


def choose(replicas: Sequence[Replica], demand: Demand, sample: Callable[[int], int]) -> Replica | None:
    """The one of these where the request is worth most, less what its work costs those behind it, or None of none.

    Args:
        replicas: `candidates`.
        demand: the request.
        sample: a random whole number below its argument; asked only where there are many replicas. Two random choices
            balance nearly as well as all (Mitzenmacher, 2001), and keep routers that see the same from doing the same.

    """
    if len(replicas) > _FEW:
        warm = sorted(replicas, key=lambda replica: -replica.prefix_tokens)[: _FEW // 4]
        replicas = [*(r for r in warm if r.prefix_tokens), *(replicas[sample(len(replicas))] for _ in range(2))]
    return max(replicas, key=lambda replica: _value(replica, demand), default=None)


def _value(replica: Replica, demand: Demand) -> float:
    uncached = max(demand.prompt_tokens - replica.prefix_tokens, 1.0)
    speed = max(replica.tokens_per_s, 1e-9)
    own_s = work_tokens(uncached, demand.output_tokens) / speed
    backlog_s = replica.outstanding_tokens / speed + own_s - _HOME_S * replica.holds_program
    at_stake = demand.slo.gain.weight * (
        demand.slo.gain.input_token * demand.prompt_tokens + demand.slo.gain.output_token * demand.output_tokens
    )
    kept = _kept(replica, demand, uncached, speed)
    return at_stake * (kept - _BACKLOG_PRICE * backlog_s)


def _kept(replica: Replica, demand: Demand, uncached: float, speed: float) -> float:
    """The share of its gain that the request keeps there."""
    start_s = _wait_s(replica, speed)
    if replica.step is None:
        prefill_s, token_s = PROMPT_SHARE * uncached / speed, (replica.in_flight + 1) / speed
    else:
        prefill_s = uncached * replica.step.per_prefill_token_s
        token_s = replica.step.seconds(min(replica.in_flight + 1, replica.places or inf))
    first_s = demand.elapsed_s + start_s + prefill_s + token_s
    slo, decay = demand.slo, demand.slo.gain.decay
    if slo.pattern is Pattern.LATENCY:
        pace = fade(slo.objectives.tbt_s, token_s, decay)
        return fade(slo.objectives.ttft_s, first_s, decay) * pace
    if slo.pattern is Pattern.BEST_EFFORT:
        return 1.0
    return fade(demand.deadline_s, first_s + demand.output_tokens * token_s, decay)


def _wait_s(replica: Replica, speed: float) -> float:
    """Until a place falls free for one more: those in flight end one after another, each with its part of the work."""
    behind = replica.in_flight + 1 - (replica.places or inf)
    return max(behind, 0.0) * replica.outstanding_tokens / max(replica.in_flight, 1) / speed
