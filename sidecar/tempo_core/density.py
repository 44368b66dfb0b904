"""What each request can still earn, what that costs the engine, and how long it can wait.

Everything here is a column: arrays of shape (n,), one item a request, in the order of the snapshot's entries. Seconds
and tokens throughout. A program's live calls are pooled: they earn together or not at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tempo_core.lengths import Floats, remaining
from tempo_core.snapshot import BEST_EFFORT, COLLECTIVE, LATENCY, Entry, Snapshot, table

_STREAM_POINTS: Final = (0.2113, 0.7887)
"""Two-point Gauss quadrature over a stream's remaining tokens, whose shares change as it catches up."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How each request stands, were it served without a pause from now on."""

    arrival: Floats
    running: NDArray[np.bool_]
    """Whether it holds a place."""
    targeted: NDArray[np.bool_]
    """Whether it has a target at all: everything but best effort."""
    gain: Floats
    """Expected gain still to be had, in gain units; a program's calls all carry the program's."""
    gain_later: Floats
    """The same, were it served only once all the work at hand is done."""
    density: Floats
    """Gain a second of engine time."""
    loss_density: Floats
    """Gain lost by letting everyone else go first, a second of engine time."""
    cost_s: Floats
    """Engine time that its remaining tokens take, sharing steps with a full batch; a program's calls' together."""
    own_cost_s: Floats
    """The same for the request alone."""
    run_s: Floats
    """Time to its end, expected."""
    slack_s: Floats
    """How long it can wait and still be on time, if it turns out as long as its length bound."""
    due_s: Floats
    """When its last token is due, absolute; inf for best effort."""
    attainable: NDArray[np.bool_]
    """Whether it can still meet its target, if it turns out as long as expected."""
    prefill_tokens: Floats
    """Tokens to compute before its next output token; 0 for a request that is decoding."""
    recompute_s: Floats
    """What taking it off the batch would cost: computing its cache again."""


def outlook(snapshot: Snapshot, now_s: float) -> Outlook:
    """The outlook of every entry of a snapshot that has at least one."""
    entries, step = snapshot.entries, snapshot.step_time
    facts, grid = table(entries)
    _, *state = zip(*entries, strict=True)
    generated, computed, running, first_token, _ = (np.array(column, dtype=np.float64) for column in state)

    bound, mean = remaining(grid, generated, snapshot.settings.length_quantile)
    left = np.maximum(facts["max_tokens"] - generated, 1.0)
    to_bound, to_come = np.minimum(bound - generated, left), np.minimum(mean, left)
    to_compute = np.maximum(facts["prompt"] + generated - computed, 0.0)
    prefill = np.where((to_compute <= 1.0) & (generated > 0.0), 0.0, to_compute)

    batch = float(min(len(entries), snapshot.max_running))
    decode_s = step.seconds(batch, 0.0, float(computed @ running))
    prefill_s = prefill * step.per_prefill_token_s
    own_cost_s = prefill_s + to_come * (decode_s / batch)
    # Others' prefill shares the steps: as much of it as the work at hand has for each token that it has to decode.
    token_s = decode_s + batch * float(prefill_s.sum() / to_come.sum())
    run_s = prefill_s + to_come * token_s

    pattern = facts["pattern"]
    backlog_s = float(own_cost_s.sum())
    stream = _streams(facts, generated, to_come, prefill_s, first_token, token_s, now_s)
    stream_later = _streams(facts, generated, to_come, prefill_s, first_token, token_s, now_s + backlog_s)
    worth = facts["weight"] * (facts["w_in"] * facts["prompt"] + facts["w_out"] * (generated + to_come))
    gain, cost_s, end_s = worth, own_cost_s, now_s + run_s
    calls = np.flatnonzero(pattern == COLLECTIVE)
    if len(calls):
        gain, cost_s, end_s = _pool(entries, calls, facts["banked"], worth, own_cost_s, end_s)
    allowed = np.maximum(facts["due"] - facts["scored_from"], 0.0)
    with np.errstate(invalid="ignore"):  # inf / inf of best effort, replaced below
        now, later = (_fade(allowed, end_s + d - facts["scored_from"], facts["decay"]) for d in (0.0, backlog_s))

    is_stream = pattern == LATENCY
    bound_s = prefill_s + to_bound * token_s
    due = np.where(is_stream, stream.due, facts["due"])
    gain_now = np.where(is_stream, stream.gain, gain * np.where(pattern == BEST_EFFORT, 1.0, now))
    gain_later = np.where(is_stream, stream_later.gain, gain * np.where(pattern == BEST_EFFORT, 1.0, later))
    return Outlook(
        arrival=facts["arrival"],
        running=running > 0.0,
        targeted=pattern != BEST_EFFORT,
        gain=gain_now,
        gain_later=gain_later,
        density=gain_now / cost_s,
        loss_density=(gain_now - gain_later) / cost_s,
        cost_s=cost_s,
        own_cost_s=own_cost_s,
        run_s=run_s,
        slack_s=np.where(is_stream, stream.slack, facts["due"] - now_s - bound_s),
        due_s=due,
        attainable=np.where(is_stream, stream.attainable, now_s + run_s <= due),
        prefill_tokens=prefill,
        recompute_s=computed * step.per_prefill_token_s,
    )


@dataclass(frozen=True, slots=True)
class _Streams:
    gain: Floats
    slack: Floats
    due: Floats
    attainable: NDArray[np.bool_]


def _streams(  # columns of one table
    facts: dict[str, Floats],
    generated: Floats,
    to_come: Floats,
    prefill_s: Floats,
    first_token: Floats,
    token_s: float,
    now_s: float,
) -> _Streams:
    """The latency-sensitive view of all entries (only those of that pattern are read).

    Token O of a stream is due `ttft' + O * tbt` after arrival, where ttft' is the smaller of its measured and its
    target time to first token. Before the first token, serving at once would give `elapsed + prefill + one step`.
    """
    ttft, tbt, decay = facts["ttft"], facts["tbt"], facts["decay"]
    elapsed = now_s - facts["arrival"]
    started = generated > 0.0
    first_at = np.where(started, first_token - facts["arrival"], elapsed + prefill_s + token_s)
    first_at = np.where(np.isnan(first_at), elapsed, first_at)
    base = np.minimum(first_at, ttft)
    with np.errstate(invalid="ignore"):  # inf - inf of other patterns' absent targets; masked by the caller
        shares = [
            _fade(generated + to_come * f, (elapsed + prefill_s + to_come * (f * token_s) - base) / tbt, decay)
            for f in _STREAM_POINTS
        ]
        on_time = np.where(started, 0.0, facts["w_in"] * facts["prompt"] * _fade(ttft, first_at, decay))
        gain = facts["weight"] * (on_time + facts["w_out"] * to_come * (shares[0] + shares[1]) / 2.0)
        due = base + (generated + to_come) * tbt
        in_pace = elapsed + prefill_s + to_come * token_s <= due + token_s
        slack = np.where(started, base + generated * tbt - elapsed, ttft - elapsed) - prefill_s - token_s
    return _Streams(gain, slack, facts["arrival"] + due, (first_at <= ttft) & in_pace)


def _pool(
    entries: Sequence[Entry], calls: NDArray[np.intp], banked: Floats, worth: Floats, cost_s: Floats, end_s: Floats
) -> tuple[Floats, Floats, Floats]:
    """Gain, cost and end of every entry's program (of the entry itself, where it has none).

    `calls` are the indices of collective entries; a program is known by its first one.
    """
    of = np.arange(len(worth))
    first: dict[str, int] = {}
    for index in calls.tolist():
        program = entries[index].job.program
        if program is not None:
            of[index] = first.setdefault(program, index)
    gain = np.bincount(of, worth)
    cost = np.bincount(of, cost_s)
    at_stake, end = np.zeros(len(gain)), np.zeros(len(gain))
    np.maximum.at(at_stake, of, banked)
    np.maximum.at(end, of, end_s)
    return (gain + at_stake)[of], cost[of], end[of]


def _fade(target: Floats, measured: Floats, decay: Floats) -> Floats:
    """`gain.fade` on columns; a target that is not passed keeps everything, also where both are infinite."""
    late = measured > target
    ratio = np.where(late, target, 1.0) / np.where(late, measured, 1.0)
    return np.where(late, np.maximum(ratio, 0.0) ** np.where(late, decay, 1.0), 1.0)
