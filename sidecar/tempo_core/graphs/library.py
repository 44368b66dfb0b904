"""The graphs of one class of traffic: matched in one array pass, bounded, the rarely used ones evicted.

**Likeness** of two stages is a Gaussian kernel on the logarithms of their numbers, so that 100 tokens are to 150 what
1,000 are to 1,500. A graph whose stages so far are, on the average, nothing like the running program's is out; the
others weigh by their likeness and by how often they were used. Evidence counts as the root of the number of stages,
because stages of one program are not independent: who answers at length does so in all of them.

**Clusters.** A program so much like a known one that telling them apart is worth nothing is counted as a use of that
one, which stays as it is. This is leader clustering: like K-medoids it stands for each cluster by a real program, but
it takes one pass of the match for each program that ends, never moves what a store or another node has written
already, and needs no K, only how alike is alike.

**Uses** fade by `DECAY_PER_HOUR`. What is kept is a rank, the logarithm of the uses as they would count at time zero:
it changes only with a use, orders graphs alike at any time, and is one number that any store can sort by.
"""

from dataclasses import dataclass
from math import log
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tempo_core.graphs.graph import MAX_STAGES, Graph

Floats = NDArray[np.float64]

DECAY_PER_HOUR: Final = 0.9
"""What an hour leaves of a use."""

PROMPT_SHARE: Final = 0.02
"""What a prompt token takes, in output tokens: a prompt is read in parallel."""

_FADE_PER_S: Final = -log(DECAY_PER_HOUR) / 3600.0
_LARGEST_USES: Final = 1e6
_SIGMA: Final = np.array((0.5, 0.5, 0.7, 0.7))
"""Of what is compared: a factor of 1.6 in calls and prompts, of 2 in output and tool time, is still fairly alike."""
_PRECISION: Final = _SIGMA**-2.0
_COMPARED: Final = (0, 1, 2, 4)
"""Of `Stage`: calls, prompt tokens, output tokens, tool time; the longest response follows from these."""
_UNLIKE: Final = 12.0
"""Mean squared distance of the stages, in sigmas, beyond which a program is nothing like a graph. Stages of the same
kind are mostly 4 apart, one for each of the numbers compared, and an agent's turns 8."""
_SAME: Final = 0.5
"""The same for programs that are not worth telling apart: some 25% in each length."""
_BEGUN: Final = 0.25
"""What the stage that begins counts: of its calls' prompts only the first is known, and they may differ."""
_LEAST_WORK: Final = 1e-3


class Record(NamedTuple):
    """A graph as it is stored and shared."""

    slo_class: str
    graph: bytes
    rank: float


@dataclass(frozen=True, slots=True)
class Matches:
    """The graphs that a running program may turn out like. Arrays of shape (n,), n > 0; work is in output tokens."""

    weight: Floats
    """Adds up to 1."""
    similarity: float
    """Of the best one, a stage's on the average, in (0, 1]."""
    stages: Floats
    work: Floats
    """What the stage that begins takes, its longest call's."""
    work_after: Floats
    """What the stages after it take, tools aside."""
    tool_after_s: Floats
    prompt_after: Floats
    """Prompt tokens of all calls of the stages after it."""
    output_after: Floats


class GraphLibrary:
    """See the module. Times are seconds since the epoch, so that ranks of several nodes compare.

    Args:
        slo_class: whose programs these are.
        capacity: graphs kept; one more evicts the one used least.

    """

    def __init__(self, slo_class: str, capacity: int = 500) -> None:
        self.slo_class = slo_class
        self._size = 0
        self._rows: dict[bytes, int] = {}
        self._packed: list[bytes] = []
        self._rank = np.empty(capacity)
        self._stages = np.empty(capacity)
        self._features = np.zeros((capacity, MAX_STAGES, len(_SIGMA)))
        self._work = np.zeros((capacity, MAX_STAGES))
        self._after = np.zeros((capacity, MAX_STAGES, 4))  # work, tool, prompt and output of all later stages
        self._tail = np.zeros((capacity, 4))  # the same, of those that are not kept one by one

    def __len__(self) -> int:
        return self._size

    def add(self, graph: Graph, now_s: float) -> Record:
        """A program ended at `now_s`; returns what is to be stored: its graph, or the one that it is a use of."""
        row = self._leader(graph)
        if row is None:
            row = self._insert(graph, now_s * _FADE_PER_S)
        else:
            self._rank[row] = np.logaddexp(self._rank[row], now_s * _FADE_PER_S)
        return Record(self.slo_class, self._packed[row], float(self._rank[row]))

    def restore(self, record: Record, now_s: float) -> None:
        """Take over what was stored, here or by another node; where there is no room, the ranks decide.

        Raises:
            GraphError: if it holds no graph.

        """
        rank = min(record.rank, now_s * _FADE_PER_S + log(_LARGEST_USES))  # a wrong clock must not keep it for ever
        row = self._rows.get(record.graph)
        if row is not None:
            self._rank[row] = max(self._rank[row], rank)
        elif self._size < len(self._rank) or rank > self._rank.min():
            self._insert(Graph.unpack(record.graph), rank)

    def match(self, prefix: Floats, stage: int) -> Matches | None:
        """The graphs that a program may turn out like whose stage number `stage`, from 0, begins.

        Args:
            prefix: shape (n, 4), at least one row: calls, mean prompt tokens, mean output tokens and tool seconds of
                its stages so far, that one included; nan for what is not known (yet).
            stage: its number. Beyond `MAX_STAGES` the first stages alone are compared.

        """
        size, rows = self._size, min(len(prefix), MAX_STAGES)
        precision = np.tile(_PRECISION, (rows, 1))
        if stage < MAX_STAGES:
            precision[-1] *= _BEGUN
        distance = self._distances(np.log1p(prefix[:rows]), precision)
        alive = np.flatnonzero((self._stages[:size] > stage) & (distance <= _UNLIKE))
        if not len(alive):
            return None
        logs = self._rank[alive] - 0.5 * rows**0.5 * distance[alive]
        weight = np.exp(logs - logs.max())
        return self._matches(alive, stage, weight / weight.sum(), float(np.exp(-0.5 * distance[alive].min())))

    def _matches(self, alive: NDArray[np.intp], stage: int, weight: Floats, similarity: float) -> Matches:
        stages = self._stages[alive]
        if stage < MAX_STAGES:
            work, after = self._work[alive, stage], self._after[alive, stage]
        else:  # all that is known of these stages is their sums: they count as equal
            each = self._tail[alive] / (stages - MAX_STAGES)[:, None]
            work, after = each[:, 0], each * (stages - stage - 1.0)[:, None]
        work = np.maximum(work, _LEAST_WORK)
        return Matches(weight, similarity, stages, work, *np.ascontiguousarray(after.T))

    def _distances(self, logs: Floats, precision: Floats) -> Floats:
        """Mean squared distance, in sigmas, of each graph's first stages to these; shape (graphs,)."""
        known = ~np.isnan(logs)
        apart = self._features[: self._size, : len(logs)] - np.where(known, logs, 0.0)
        apart *= apart
        distances: Floats = np.einsum("gsf,sf->g", apart, known * precision) / len(logs)
        return distances

    def _leader(self, graph: Graph) -> int | None:
        """The known graph that stands for this one, if any."""
        as_long = np.flatnonzero(self._stages[: self._size] == graph.count)
        if not len(as_long):
            return None
        logs = np.log1p(np.array(graph.stages)[:, _COMPARED])
        distance = self._distances(logs, np.tile(_PRECISION, (len(logs), 1)))[as_long]
        nearest = int(distance.argmin())
        return int(as_long[nearest]) if distance[nearest] <= _SAME else None

    def _insert(self, graph: Graph, rank: float) -> int:
        row = self._free_row(graph.packed)
        self._rank[row], self._stages[row] = rank, graph.count
        prompt, output, longest, tool_s = graph.tail
        self._tail[row] = longest + PROMPT_SHARE * prompt, tool_s, prompt, output
        table, kept = np.array(graph.stages), len(graph.stages)
        calls, prompts, outputs, longests, tools_s = table.T
        work = longests + PROMPT_SHARE * prompts
        sums = np.stack((work, tools_s, calls * prompts, calls * outputs), axis=1)
        self._features[row, :kept] = np.log1p(table[:, _COMPARED])
        self._work[row, :kept] = work
        self._after[row] = self._tail[row]
        self._after[row, : kept - 1] += np.cumsum(sums[:0:-1], axis=0)[::-1]
        return row

    def _free_row(self, packed: bytes) -> int:
        """A row for this graph: a new one, or that of the graph used least."""
        if self._size < len(self._rank):
            row, self._size = self._size, self._size + 1
            self._packed.append(packed)
        else:
            row = int(self._rank.argmin())
            del self._rows[self._packed[row]]
            self._packed[row] = packed
        self._rows[packed] = row
        return row
