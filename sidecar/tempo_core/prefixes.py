"""Which replicas have served the beginning of a prompt, and so may still have it in their caches.

A prompt is known by keys, one for each of its leading blocks, that stand for everything up to there: two prompts share
a key where they share all text before its end. The table is bounded; what was asked for the longest time ago goes
first, as in the engines' own caches.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Final
from zlib import crc32

BLOCK_BYTES: Final = 512
BLOCK_TOKENS: Final = 128.0
"""About as many tokens are in a block of text."""
_MOST_BLOCKS: Final = 64
"""Further into a prompt nobody looks: where 8,000 tokens are the same, the rest decides nothing."""
_MOST_HOLDERS: Final = 8
"""Replicas that are remembered of one block; of a prompt that all have, any of them will do."""


def chain(prompt: bytes) -> list[int]:
    """Keys of the full leading blocks, the shortest prefix first; of a very long one only the beginning is looked at.

    The running CRC costs a tenth of a cryptographic hash. That it can be forged does no harm: whoever does so sends
    his own prompt where its prefix is not.
    """
    data = memoryview(prompt)
    keys, running = [], 0
    for index in range(min(len(data) // BLOCK_BYTES, _MOST_BLOCKS)):
        start = index * BLOCK_BYTES
        running = crc32(data[start : start + BLOCK_BYTES], running)
        keys.append(index << 32 | running)
    return keys


class PrefixTable:
    """Replicas by block.

    Args:
        capacity: blocks that are remembered.

    """

    def __init__(self, capacity: int = 50_000) -> None:
        self._capacity = capacity
        self._holders: OrderedDict[int, tuple[int, ...]] = OrderedDict()  # the longest unused first
        # A replica that is forgotten comes back under another number: its old entries name nobody any more.
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._holders)

    def matched(self, keys: Sequence[int]) -> Mapping[str, int]:
        """How many leading blocks of a prompt each replica has served, as far as is remembered; those with none absent.

        Engines let the end of a prefix go before its beginning, so who has a block has those before it.
        """
        known = list(takewhile(bool, map(self._holders.get, keys)))
        names, deepest = self._names, dict[str, int]()
        for depth in range(len(known), 0, -1):
            for number in known[depth - 1] or ():
                if number in names:
                    deepest.setdefault(names[number], depth)
            if len(deepest) == len(names):
                break
        return deepest

    def note(self, keys: Sequence[int], replica: str) -> None:
        """The replica serves a prompt with these keys."""
        number, table = self._number(replica), self._holders
        for key in reversed(keys):  # so that the beginning is the last to be forgotten
            holders = table.get(key, ())
            if number not in holders:
                table[key] = (number, *holders[: _MOST_HOLDERS - 1])
            table.move_to_end(key)
        while len(table) > self._capacity:
            table.popitem(last=False)

    def forget(self, replica: str) -> None:
        """The replica's cache is gone."""
        number = self._numbers.pop(replica, None)
        if number is not None:
            del self._names[number]

    def _number(self, replica: str) -> int:
        number = self._numbers.get(replica)
        if number is None:
            self._last = number = self._last + 1
            self._numbers[replica], self._names[number] = number, replica
        return number
