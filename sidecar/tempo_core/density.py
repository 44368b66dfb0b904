"""What each request can still earn, what that costs the engine, and how long it can wait.

Everything here is a column: arrays of shape (n,), one item a request, in the order of the snapshot's entries. Seconds
and tokens throughout. A program's live calls are pooled, with what is expected of its later stages: they earn together
or not at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tempo_core.lengths import Floats, remaining
from tempo_core.snapshot import BEST_EFFORT, COLLECTIVE, LATENCY, Entry, Snapshot, table

_STREAM_POINTS: Final = (0.2113, 0.7887)
"""Two-point Gauss quadrature over a stream's remaining tokens, whose shares change as it catches up."""

_STEEPEST: Final = 6.0
"""Expected gain fades no faster, though `decay` be hard: what an estimate calls late may turn out in time."""

_HOPE: Final = 0.5
"""A target is given up once it is expected to be missed by more than this share of its time, not before: lengths are
skewed, so that most turn out shorter than their mean, and what is given up too early can't be had back."""

_TURN_S: Final = 0.5
"""What a request loses at the least by not being next: about the time until a place falls free."""

_PROMISE: Final = 3.0
"""What a promise of soft gain counts beside other promises, in mean losses of gain by waiting."""

Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Outlook:
    """How each request stands, were it served without a pause from now on."""

    arrival: Floats
    running: Mask
    """Whether it holds a place."""
    targeted: Mask
    """Whether it has a target at all: everything but best effort."""
    gain: Floats
    """Expected gain still to be had, in gain units; a program's calls all carry the program's."""
    loss_after: Callable[[Floats], Floats]
    """What is lost of it by waiting as many seconds as the argument, shape (n,), says, promises at their full stake."""
    cost_s: Floats
    """Engine time that its remaining tokens take, sharing steps with a full batch; a program's calls' together."""
    own_cost_s: Floats
    """The same for the request alone."""
    density: Floats
    """Gain a second of engine time."""
    loss_density: Floats
    """What is lost by waiting for `horizon_s`, a second of engine time."""
    all_to_lose: Mask
    """Programs with tools that can still be on time: what they lose by waiting is all that they have."""
    horizon_s: float
    """How late the latest would start, were all that wait and can be on time served by least slack, and a turn."""
    work_s: float
    """Engine time of all the work at hand."""
    run_s: Floats
    """Time to its end, expected."""
    slack_s: Floats
    """How long it can wait and still be on time, if it turns out as long as its length bound."""
    expected: Mask
    """Whether it will meet its target, if it turns out as long as expected."""
    attainable: Mask
    """Whether it still may: the expected are, and whoever is not expected to be too late by much."""
    decoding: Mask
    """Whether it runs and its next step is one token."""
    tbt_s: Floats
    """Target between tokens; inf where there is none."""
    next_due_s: Floats
    """Time until a started stream's next token is due; inf for everything else."""
    context_tokens: float
    """What the running requests have in the cache, together."""
    recompute_s: Floats
    """What taking it off the batch would cost: computing its cache again."""


def outlook(snapshot: Snapshot, now_s: float) -> Outlook:
    """The outlook of every entry of a snapshot that has at least one.

    What waiting loses is gain, and with it the promise: a target that could have been met and now is not. A promise
    counts `Settings.promise_value` times what the mean request of its weight has at stake. Among promises of soft gain
    (`loss_density`) it is `_PROMISE` times what that request would lose of its gain, if that is less.
    """
    entries, step = snapshot.entries, snapshot.step_time
    facts, curves = table(entries)
    facts["hard"] = np.isinf(facts["decay"])
    facts["decay"] = np.minimum(facts["decay"], _STEEPEST)
    _, *state = zip(*entries, strict=True)
    generated, computed, running, first_token, _ = (np.array(column, dtype=np.float64) for column in state)

    bound, mean = remaining(curves, generated, snapshot.settings.length_quantile)
    left = np.maximum(facts["max_tokens"] - generated, 1.0)
    to_bound, to_come = np.minimum(bound - generated, left), np.minimum(mean, left)
    to_compute = np.maximum(facts["prompt"] + generated - computed, 0.0)
    prefill = np.where((to_compute <= 1.0) & (generated > 0.0), 0.0, to_compute)

    batch = float(min(len(entries), snapshot.max_running))
    context_tokens = float(computed @ running)
    decode_s = step.seconds(batch, 0.0, context_tokens)
    prefill_s = prefill * step.per_prefill_token_s
    own_cost_s = prefill_s + to_come * (decode_s / batch)
    # Others' prefill shares the steps: as much of it as the work at hand has for each token that it has to decode.
    token_s = decode_s + batch * float(prefill_s.sum() / to_come.sum())
    run_s = prefill_s + to_come * token_s

    at_stake = _worth(facts, facts["prompt"], generated + to_come)
    later_s = facts["later_prompt"] * step.per_prefill_token_s + facts["later_output"] * (decode_s / batch)
    at_stake, cost_s, end_s = _pool(entries, facts, at_stake, own_cost_s, later_s, now_s + run_s)
    streams = _streams(facts, generated, to_come, prefill_s, first_token, token_s, now_s)

    def gain_after(delay_s: Floats) -> Floats:
        allowed = facts["latest"] - facts["scored_from"]
        gain = at_stake * _fade(allowed, end_s - facts["scored_from"] + delay_s, facts["decay"])
        gain[streams.index] = streams.gain_after(delay_s[streams.index])
        return gain

    slack_s = facts["due"] - now_s - prefill_s - to_bound * token_s
    expected = now_s + run_s <= facts["latest"]
    attainable = now_s + run_s <= facts["latest"] + _HOPE * (facts["latest"] - facts["scored_from"])
    next_due_s = np.full(len(entries), np.inf)
    slack_s[streams.index] = streams.slack_s
    expected[streams.index] = attainable[streams.index] = streams.attainable
    next_due_s[streams.index] = streams.next_due_s
    gain, targeted = gain_after(np.zeros(len(entries))), facts["pattern"] != BEST_EFFORT
    expected &= targeted
    attainable &= targeted

    work_s = float(own_cost_s.sum())
    horizon_s = min(_TURN_S + _lateness(own_cost_s, slack_s, attainable & (running == 0.0)), work_s)
    faded = gain - gain_after(np.full(len(entries), horizon_s))
    share = targeted / (facts["weight"] * max(float(targeted.sum()), 1.0))
    stake = float(gain @ share)
    unit = np.where(facts["hard"] > 0.0, stake, min(_PROMISE * float(faded @ share), stake))
    promise = snapshot.settings.promise_value * facts["weight"]

    def loss_after(delay_s: Floats) -> Floats:
        broken = attainable & (slack_s < delay_s)
        loss: Floats = gain - gain_after(delay_s) + np.where(broken, promise * stake, 0.0)
        return loss

    # How long the next tool takes nobody knows: a program that has time enough now may have none after it.
    all_to_lose = attainable & (facts["tools"] > 0.0)
    broken = all_to_lose | (attainable & (slack_s < horizon_s))
    at_risk = np.where(all_to_lose, gain, faded) + np.where(broken, promise * unit, 0.0)
    return Outlook(
        arrival=facts["arrival"],
        running=running > 0.0,
        targeted=targeted,
        gain=gain,
        loss_after=loss_after,
        cost_s=cost_s,
        own_cost_s=own_cost_s,
        density=gain / cost_s,
        loss_density=at_risk / cost_s,
        all_to_lose=all_to_lose,
        horizon_s=horizon_s,
        work_s=work_s,
        run_s=run_s,
        slack_s=slack_s,
        expected=expected,
        attainable=attainable,
        decoding=(running > 0.0) & (prefill == 0.0),
        tbt_s=facts["tbt"],
        next_due_s=next_due_s,
        context_tokens=context_tokens,
        recompute_s=computed * step.per_prefill_token_s,
    )


def _lateness(cost_s: Floats, slack_s: Floats, waiting: Mask) -> float:
    """How late the latest of those that wait would start, were they served by least slack; 0 if none would be."""
    index = np.flatnonzero(waiting)
    index = index[np.argsort(slack_s[index])]
    ahead_s = np.cumsum(cost_s[index]) - cost_s[index]
    return float(np.max(ahead_s - np.maximum(slack_s[index], 0.0), initial=0.0))


@dataclass(frozen=True, slots=True)
class _Streams:
    """The latency-sensitive entries' part of the columns, and where they stand in them."""

    index: Indices
    gain_after: Callable[[Floats], Floats]
    slack_s: Floats
    next_due_s: Floats
    attainable: Mask


def _streams(  # columns of one table
    facts: dict[str, Floats],
    generated: Floats,
    to_come: Floats,
    prefill_s: Floats,
    first_token: Floats,
    token_s: float,
    now_s: float,
) -> _Streams:
    """The outlook of the latency-sensitive entries.

    Token O of a stream is due `ttft' + O * tbt` after arrival, where ttft' is the smaller of its measured and its
    target time to first token. Before the first token, serving at once gives `elapsed + prefill + one step`.
    Hard gain counts tokens alone, each due by the target (`gain.RequestLedger`): a stream that is late and faster than
    its pace has all of them in time from the one on with which it catches up.
    """
    index = np.flatnonzero(facts["pattern"] == LATENCY)
    facts = {name: column[index] for name, column in facts.items()}
    out, to_come, prefill_s, first_token = generated[index], to_come[index], prefill_s[index], first_token[index]
    arrival, ttft, tbt, decay = facts["arrival"], facts["ttft"], facts["tbt"], facts["decay"]
    started = (out > 0.0) & ~np.isnan(first_token)
    hard = facts["hard"] > 0.0
    elapsed = now_s - arrival
    next_s = elapsed + prefill_s + token_s

    def gain_after(delay_s: Floats) -> Floats:
        first_s = np.where(started, first_token - arrival, next_s + delay_s)
        base = np.minimum(first_s, ttft)
        on_time = np.where((out > 0.0) | hard, 0.0, facts["w_in"] * facts["prompt"] * _fade(ttft, first_s, decay))
        shares = 0.0 * base
        for point in _STREAM_POINTS:
            due = (elapsed + delay_s + prefill_s + to_come * (point * token_s) - base) / tbt
            shares += _fade(out + to_come * point, due, decay) / len(_STREAM_POINTS)
        if hard.any():
            behind_s = elapsed + delay_s + prefill_s - ttft - out * tbt
            caught_up = 1.0 - behind_s / (np.maximum(tbt - token_s, 1e-9) * to_come)
            shares = np.where(hard, np.clip(caught_up, 0.0, 1.0), shares)
        gain: Floats = facts["weight"] * (on_time + facts["w_out"] * to_come * shares)
        return gain

    first_s = np.where(started, first_token - arrival, next_s)
    base = np.minimum(first_s, ttft)
    due = base + (out + to_come) * tbt
    in_pace = elapsed + prefill_s + to_come * token_s <= due + token_s
    slack_s = np.where(started, base + out * tbt, ttft) - next_s
    next_due_s = np.where(started, base + (out + 1.0) * tbt - elapsed, np.inf)
    return _Streams(index, gain_after, slack_s, next_due_s, (first_s <= ttft) & in_pace)


def _worth(facts: dict[str, Floats], prompt: Floats, output: Floats) -> Floats:
    """`gain.token_value` on columns."""
    worth: Floats = facts["weight"] * (facts["w_in"] * prompt + facts["w_out"] * output)
    return worth


def _pool(
    entries: Sequence[Entry], facts: dict[str, Floats], worth: Floats, cost_s: Floats, later_s: Floats, end_s: Floats
) -> tuple[Floats, Floats, Floats]:
    """What is at stake, what it costs and when it ends: of an entry's program, or of itself where it has none.

    A program is known by its first entry's index. What its calls say of its past and its future is the same thing said
    by each, so the largest stands for all.
    """
    of = np.arange(len(worth))
    first: dict[str, int] = {}
    for index in np.flatnonzero(facts["pattern"] == COLLECTIVE).tolist():
        program = entries[index].job.program
        if program is not None:
            of[index] = first.setdefault(program, index)
    if not first:
        return worth, cost_s, end_s
    size = len(of)
    rest, rest_s, end = np.zeros((3, size))
    np.maximum.at(rest, of, facts["banked"] + _worth(facts, facts["later_prompt"], facts["later_output"]))
    np.maximum.at(rest_s, of, later_s)
    np.maximum.at(end, of, end_s)
    return (np.bincount(of, worth, size) + rest)[of], (np.bincount(of, cost_s, size) + rest_s)[of], end[of]


def _fade(target: Floats, measured: Floats, decay: Floats) -> Floats:
    """`gain.fade` on columns; a target that was past from the start keeps nothing."""
    share: Floats = np.clip(target / np.maximum(measured, 1e-9), 0.0, 1.0)
    return share if (decay == 1.0).all() else share**decay
