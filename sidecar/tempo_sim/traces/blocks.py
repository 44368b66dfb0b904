"""Prefix blocks of a trace, as blocks of the engine's size.

Traces name a prompt's block by a hash of everything up to its end, so one name stands for one prefix. An engine block
is named after the trace's block that holds its last token, and its place in it.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_BLOCKS: Final = 1 << 22
"""More than any prompt has."""

MAX_ID: Final = 1 << 62


def parse_ranges(text: str) -> NDArray[np.int64]:
    """The ids in ranges such as `1-1523 1525`.

    Raises:
        ValueError: naming the part that is no range, or the whole where it is too long for any prompt.

    """
    pairs = [_ends(part) for part in text.split()]
    if sum(last + 1 - first for first, last in pairs) > MAX_BLOCKS:
        raise ValueError(f"names more than {MAX_BLOCKS} blocks")
    parts = [np.arange(first, last + 1, dtype=np.int64) for first, last in pairs]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _ends(part: str) -> tuple[int, int]:
    first, _, last = part.partition("-")
    if first.isdecimal() and (last or first).isdecimal():
        low, high = int(first), int(last or first)
        if low <= high < MAX_ID:
            return low, high
    raise ValueError(f"{part[:40]!r} is neither a block's number nor a range such as 1-1523")


def format_ranges(ids: Iterable[int]) -> str:
    """The ids as `parse_ranges` reads them."""
    runs = [list(run) for _, run in groupby(enumerate(ids), key=lambda pair: pair[1] - pair[0])]
    ends = [(run[0][1], run[-1][1]) for run in runs]
    return " ".join(f"{low}-{high}" if high > low else str(low) for low, high in ends)


def reblock(
    ids: NDArray[np.int64] | Sequence[int],
    *,
    trace_tokens: float,
    engine_tokens: int,
    prompt_tokens: int,
    known: dict[int, int],
) -> tuple[int, ...]:
    """The ids of the prompt's leading full engine blocks.

    Args:
        ids: the trace's blocks, in order.
        trace_tokens: tokens in one of them, scaled as the prompt is.
        engine_tokens: tokens in an engine block.
        prompt_tokens: the prompt's length, which the blocks do not exceed.
        known: ids seen so far, so that equal ones are one object: a long session names its blocks many times.

    """
    ids = np.asarray(ids, dtype=np.int64)
    per = trace_tokens / engine_tokens
    count = min(int(len(ids) * per + 1e-9), prompt_tokens // engine_tokens)
    places = np.arange(count)
    holders = np.minimum(np.ceil((places + 1) / per - 1e-9).astype(np.int64) - 1, len(ids) - 1)
    within = places - (holders * per + 1e-9).astype(np.int64)
    new = (ids[holders] * ceil(per) + within).tolist() if count else []
    return tuple(map(known.setdefault, new, new))
