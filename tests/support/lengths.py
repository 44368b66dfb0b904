"""A seeded workload whose prompts say, in words, how long their answers will be."""

import numpy as np

from tempo_core.lengths import GRID
from tempo_sidecar.forest.features import features
from tempo_sidecar.forest.sample import Sample
from tempo_sidecar.lengths import LengthQuery

ASKS = {
    "Translate this word, please.": 8.0,
    "Answer yes or no: is water wet?": 4.0,
    "Summarise the following report in a paragraph.": 90.0,
    "Write a long essay about the history of bridges.": 700.0,
    "Implement this in Python:\n```\ndef solve(grid): ...\n```": 300.0,
}
FILLER = ["the", "of", "and", "river", "stone", "paper", "cloud", "engine", "walk", "seven", "light", "music"]


def workload(count, seed, scale=1.0, slo_class="chat", max_tokens=4096):
    """Queries, and the lengths that turn out: lognormal around what was asked for."""
    rng = np.random.default_rng(seed)
    asks = list(ASKS.items())
    for _ in range(count):
        text, median = asks[rng.integers(len(asks))]
        filler = " ".join(rng.choice(FILLER, rng.integers(5, 60)))
        messages = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": f"{text} {filler}"}]
        query = LengthQuery(slo_class, len(text + filler) // 4, max_tokens, 0, {"messages": messages})
        yield query, int(np.ceil(scale * median * rng.lognormal(0.0, 0.4)))


def sampled(pairs, capacity=4096):
    """A sample of these queries and lengths, cut by their caps."""
    sample = Sample(np.random.default_rng(0), capacity)
    for query, length in pairs:
        cap = query.max_tokens
        sample.add(query.slo_class, features(query), min(length, cap), truncated=length > cap)
    return sample


def pinball(grid, length):
    """The loss that quantiles at `GRID` minimise, averaged over them."""
    over = length - np.array(grid)
    return float(np.maximum(np.array(GRID) * over, (np.array(GRID) - 1.0) * over).mean())
