"""The KV cache of one engine: blocks of tokens, shared prefixes, and what is remembered of requests that left.

It keeps vLLM's books. A full block has an identity, by which a later request with the same tokens before it finds it
again. Blocks that nobody uses stay cached until memory is needed, the longest unused first, and of one request the
last block first. Memory is short when what is asked for exceeds the free and the unused blocks together.

Only the identities that a prompt declares can be shared. Of the blocks behind them none but the request itself can ever
ask, after a preemption; they go by its name and a count.
"""

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Holding:
    """The blocks of one request."""

    owner: str
    """Unique in the run: the identity of blocks that no other request shares."""
    prefix: tuple[int, ...]
    """Identities of its leading blocks."""
    blocks: int = 0
    capacity: int = 0
    """Tokens that its blocks have room for."""
    shared: list[int] = field(default_factory=list)
    """Identities in use by it."""
    known: int = 0
    """Leading blocks of its prefix that have been looked at: shared, or duplicates of another's."""


class KVCache:
    """A fixed number of blocks of `block_size` tokens."""

    def __init__(self, blocks: int, block_size: int) -> None:
        self.blocks = blocks
        self.block_size = block_size
        self._free = blocks
        self._idle: OrderedDict[int | str, int] = OrderedDict()  # how many blocks, the first to go first
        self._idle_blocks = 0
        self._users: dict[int, int] = {}

    @property
    def available(self) -> int:
        """Blocks to be had: free ones and unused ones."""
        return self._free + self._idle_blocks

    @property
    def used(self) -> int:
        """Blocks in use, each counted once however many requests share it."""
        return self.blocks - self.available

    def cached_tokens(self, holding: Holding, length: int) -> int:
        """How many leading tokens of a request of `length` tokens need no computing; at least one always does."""
        limit = (length - 1) // self.block_size
        hits = 0
        for identity in holding.prefix[:limit]:
            if identity not in self._users and identity not in self._idle:
                return hits * self.block_size
            hits += 1
        if hits == len(holding.prefix):
            hits += min(self._idle.get(holding.owner, 0), limit - hits)
        return hits * self.block_size

    def admit(self, holding: Holding, cached: int, tokens: int, length: int) -> bool:
        """Give a request that holds nothing what is `cached` of it, and room for `tokens` in all; or nothing.

        As in vLLM, all of its `length` must fit, though only the first chunk of it is given: who is let in and finds no
        room for the rest would take it from others.
        """
        hits = cached // self.block_size
        shared = holding.prefix[:hits]
        own = hits - len(shared)
        unused = own + sum(identity in self._idle for identity in shared)
        if -(-length // self.block_size) - hits > self.available - unused:
            return False
        for identity in shared:
            self._idle_blocks -= self._idle.pop(identity, 0)
            self._users[identity] = self._users.get(identity, 0) + 1
        if own:
            self._forget_own(holding)
            self._free -= own
        holding.blocks, holding.known = hits, len(shared)
        holding.shared.extend(shared)
        return self.grow(holding, tokens)

    def grow(self, holding: Holding, tokens: int) -> bool:
        """Room for `tokens` in all, computed or about to be; False, and nothing done, where memory is short."""
        more = max(-(-tokens // self.block_size) - holding.blocks, 0)
        if more > self.available:
            return False
        self._take(more)
        holding.blocks += more
        holding.capacity = holding.blocks * self.block_size
        if holding.known < len(holding.prefix):
            self._share(holding, min(tokens // self.block_size, len(holding.prefix)))
        return True

    def _share(self, holding: Holding, full: int) -> None:
        """Let others find the leading `full` blocks of a prefix, unless they hold the same already."""
        for identity in holding.prefix[holding.known : full]:
            if identity not in self._users and identity not in self._idle:
                self._users[identity] = 1
                holding.shared.append(identity)
        holding.known = max(holding.known, full)

    def release(self, holding: Holding, computed: int) -> None:
        """Take back all blocks of a request that has `computed` tokens in them; full ones stay cached, unused."""
        own = max(computed // self.block_size - len(holding.prefix), 0)
        self._forget_own(holding)  # what may have outlived its prefix, and has been computed again
        self._free += holding.blocks - own - len(holding.shared)
        if own:
            self._idle[holding.owner] = own
        self._idle_blocks += own
        for identity in reversed(holding.shared):
            self._users[identity] -= 1
            if not self._users[identity]:
                del self._users[identity]
                self._idle[identity] = 1
                self._idle_blocks += 1
        holding.shared.clear()
        holding.blocks = holding.capacity = holding.known = 0

    def _forget_own(self, holding: Holding) -> None:
        own = self._idle.pop(holding.owner, 0)
        self._idle_blocks -= own
        self._free += own

    def _take(self, count: int) -> None:
        fresh = min(count, self._free)
        self._free -= fresh
        count -= fresh
        self._idle_blocks -= count
        while count:
            identity, cached = self._idle.popitem(last=False)
            if cached > count:
                self._idle[identity] = cached - count
                self._idle.move_to_end(identity, last=False)
            count -= min(cached, count)
