"""A forest from a sample, by quantile-forest. A process of its own: a sample comes in, a forest goes out, it ends.

Loading scikit-learn and growing fifty trees on 4,096 completions take some four seconds of processor time, at the
lowest priority, and 180 MB, which the sidecar then never holds. Fifty are within half a percent of the pinball loss of
a hundred, at half the time for each prediction.
"""

import os
import sys
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tempo_core.lengths import GRID
from tempo_sidecar.forest.calibration import WINDOW
from tempo_sidecar.forest.features import CLASS
from tempo_sidecar.forest.sample import Records, decode_records
from tempo_sidecar.forest.trees import Forest, decode_forest, encode_forest
from tempo_sidecar.lengths import known

_TREES: Final = 50
_LEAF: Final = 30
_LEAF_KEPT: Final = 64
"""Of a leaf that can't be split further, as of a thousand equal prompts, a random choice is kept."""
_DEPTH: Final = 20
_FEATURES: Final = 0.33
_ENOUGH: Final = 64
"""Completions below which a class is left to the simple model."""


@dataclass(frozen=True, slots=True)
class Residuals:
    """Ratios of length to predicted quantiles, (n, len(GRID)), oldest first; and which were cut by a cap, (n,)."""

    ratios: NDArray[np.float64]
    truncated: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Grown:
    """A forest, and how the trees that had not seen them do on the latest responses, by class.

    A class that is not there was too rare to be predicted.
    """

    forest: Forest
    residuals: dict[str, Residuals]


class _Encoded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    forest: bytes
    residuals: dict[str, tuple[bytes, bytes]]


def encode_grown(grown: Grown) -> bytes:
    """`grown` for another process."""
    residuals = {
        name: (r.ratios.astype("<f8").tobytes(), r.truncated.astype("u1").tobytes())
        for name, r in grown.residuals.items()
    }
    return msgspec.msgpack.encode(_Encoded(encode_forest(grown.forest), residuals))


def decode_grown(data: bytes) -> Grown:
    """The reverse of `encode_grown`.

    Raises:
        ValueError: for anything else.

    """
    encoded = msgspec.msgpack.decode(data, type=_Encoded)
    residuals = {}
    for name, (ratios, truncated) in encoded.residuals.items():
        cut = np.frombuffer(truncated, "u1").astype(np.bool_)
        residuals[name] = Residuals(np.frombuffer(ratios, "<f8").reshape(len(cut), len(GRID)), cut)
        if not (np.isfinite(residuals[name].ratios) & (residuals[name].ratios > 0.0)).all():
            raise ValueError(f"the ratios of {name} are not all positive")
    return Grown(decode_forest(encoded.forest), residuals)


def grow(records: Records, seed: int = 0) -> Grown:
    """Train on all of `records`."""
    # Ascending, so that a response's number in the library's sorted sample is its number here.
    order = np.lexsort((records.truncated, records.tokens))
    tokens, truncated = records.tokens[order].astype(np.float64), records.truncated[order]
    model = fit(records.rows[order], np.log1p(tokens) + 1e-9 * truncated, seed)
    forest = _flat(model, tokens, ~truncated)
    unseen = np.ones((len(order), _TREES), dtype=np.bool_)
    for tree, used in enumerate(model.estimators_samples_):
        unseen[order[used], tree] = False
    return Grown(forest, _residuals(forest, records, unseen))


def fit(rows: NDArray[np.float32], target: NDArray[np.float64], seed: int) -> Any:
    """The library's forest."""
    # Here, so that the sidecar, which only decodes what this process sends, never loads scikit-learn.
    from quantile_forest import RandomForestQuantileRegressor  # type: ignore[import-untyped]  # noqa: PLC0415

    return RandomForestQuantileRegressor(
        n_estimators=_TREES,
        min_samples_leaf=_LEAF,
        max_samples_leaf=_LEAF_KEPT,
        max_depth=_DEPTH,
        max_features=_FEATURES,
        random_state=seed,
    ).fit(rows, target)


def _flat(model: Any, tokens: NDArray[np.float64], ended: NDArray[np.bool_]) -> Forest:
    trees = [estimator.tree_ for estimator in model.estimators_]
    sizes = np.array([tree.node_count for tree in trees])
    roots = np.cumsum(sizes) - sizes
    children, members, counts = [], [], []
    for index, (tree, root) in enumerate(zip(trees, roots, strict=True)):
        pair = np.stack([tree.children_left, tree.children_right], axis=1)
        children.append(root + np.where(pair < 0, np.arange(tree.node_count)[:, None], pair))
        leaves = model.forest_.y_train_leaves[index]  # numbers from 1, padded with 0
        leaves = np.asarray(leaves)[: tree.node_count, 0, :]
        counts.append((leaves > 0).sum(axis=1))
        members.append(leaves[leaves > 0] - 1)
    return Forest(
        roots=roots.astype(np.int64),
        feature=np.concatenate([np.maximum(tree.feature, 0) for tree in trees]).astype(np.int64),
        threshold=np.concatenate([tree.threshold for tree in trees]),
        child=np.concatenate(children).astype(np.int64).ravel(),
        start=np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64),
        members=np.concatenate(members).astype(np.int64),
        tokens=tokens,
        ended=ended,
        depth=max(tree.max_depth for tree in trees),
    )


def _residuals(forest: Forest, records: Records, unseen: NDArray[np.bool_]) -> dict[str, Residuals]:
    """The latest of each class as seen by the trees that were grown without them."""
    found = {}
    codes = records.rows[:, CLASS]
    for code, name in enumerate(records.classes):
        its = np.flatnonzero(codes == code)
        if len(its) < _ENOUGH:
            continue
        its = its[unseen[its].any(axis=1)][-WINDOW:]
        raw = [
            known(forest.quantiles(records.rows[i], np.flatnonzero(unseen[i])).tolist(), float(forest.tokens[-1]))
            for i in its
        ]
        found[name] = Residuals(records.tokens[its, None] / np.array(raw), records.truncated[its])
    return found


def main() -> None:
    """Read a sample from standard input, and write what has grown to standard output."""
    os.nice(19)
    grown = grow(decode_records(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(encode_grown(grown))


if __name__ == "__main__":
    main()
