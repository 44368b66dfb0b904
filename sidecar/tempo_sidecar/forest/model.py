"""The forest as a length model: predicts on the spot, learns in the background, and always has an answer."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import numpy as np
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from tempo_core.lengths import GRID
from tempo_sidecar.forest import store
from tempo_sidecar.forest.calibration import Calibration
from tempo_sidecar.forest.features import CLASS, PROMPT_TOKENS, features
from tempo_sidecar.forest.grow import Grown
from tempo_sidecar.forest.sample import Records, Sample
from tempo_sidecar.forest.trainer import TrainingError, train
from tempo_sidecar.forest.trees import Forest
from tempo_sidecar.lengths import LengthQuery, Prediction, WindowLengths, capped, known

log = logging.getLogger(__name__)

_FIRST: Final = 128
"""Completions before the first forest."""
_NEW_SHARE: Final = 4
"""A new forest once one in so many of the sample's completions would be new to it."""
_LONGEST_PAUSE: Final = 64.0
"""Paces between two attempts, when training fails again and again."""
_SHOWN: Final = GRID.index(0.95)


class ForestLengths:
    """A `LengthModel` that reads the prompt.

    A class too rare for the forest, all of them at first, and everything if training never succeeds, is predicted by
    `WindowLengths`.

    Args:
        rng: decides which completions the sample forgets.
        state_dir: where the sample is kept across restarts, by one sidecar alone; None: nowhere.
        trainer: grows a forest; raises `TrainingError`.
        pace_s: how often to look whether a new forest, or saving, is due.

    """

    def __init__(
        self,
        rng: np.random.Generator,
        state_dir: Path | None = None,
        *,
        trainer: Callable[[Records], Awaitable[Grown]] = train,
        pace_s: float = 30.0,
    ) -> None:
        self._window = WindowLengths()
        self._sample = Sample(rng)
        self._state_dir = state_dir
        self._trainer = trainer
        self._pace_s = pace_s
        self._forest: Forest | None = None
        self._calibrations: dict[str, Calibration] = {}
        self._generation = 0
        self._failures = 0
        self._served: Counter[str] = Counter()
        self._learned_from = 0
        self._saved = 0
        self._writer: Executor | None = None

    def predict(self, query: LengthQuery) -> Prediction:
        """See `LengthModel`."""
        row = features(query)
        calibration = self._calibrations.get(query.slo_class)
        if self._forest is None or calibration is None:
            self._served["window"] += 1
            return Prediction(self._window.predict(query).grid, query.slo_class, query.prompt_tokens, row)
        self._served["forest"] += 1
        row[CLASS] = self._sample.codes[query.slo_class]
        raw = np.array(known(self._forest.quantiles(row).tolist(), float(self._forest.tokens[-1])))
        grid = capped(calibration.corrected(raw).tolist(), query.max_tokens)
        return Prediction(grid, query.slo_class, query.prompt_tokens, row, raw, self._generation)

    def learn(self, prediction: Prediction, output_tokens: int, *, truncated: bool) -> None:
        """See `LengthModel`."""
        self._window.learn(prediction, output_tokens, truncated=truncated)
        if prediction.row is not None:
            self._sample.add(prediction.slo_class, prediction.row, output_tokens, truncated=truncated)
        if prediction.raw is not None and prediction.generation == self._generation:
            self._calibrations[prediction.slo_class].add(prediction.raw, output_tokens, truncated=truncated)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """See `LengthModel`. What was kept is there once it is entered; all is kept when it is left."""
        await self._restore()
        # One thread writes, so that a save that is cut short by the end is over before the last one begins.
        with ThreadPoolExecutor(1) as self._writer:
            training = asyncio.create_task(self._keep_training())
            try:
                yield
            finally:
                training.cancel()
                await asyncio.gather(training, return_exceptions=True)
                await self._save()

    def metrics(self) -> Iterable[Metric]:
        """See `LengthModel`."""
        yield GaugeMetricFamily("tempo_sidecar_length_sample", "Completions to learn from", value=len(self._sample))
        yield CounterMetricFamily("tempo_sidecar_length_trainings", "Length forests grown", value=self._generation)
        yield CounterMetricFamily(
            "tempo_sidecar_length_training_failures", "Attempts at one that failed", value=self._failures
        )
        served = CounterMetricFamily("tempo_sidecar_length_predictions", "Predictions by model", labels=["model"])
        for model, count in self._served.items():
            served.add_metric([model], count)
        yield served
        correction = GaugeMetricFamily(
            "tempo_sidecar_length_correction", "Factor on the forest's 0.95 quantile", labels=["slo_class"]
        )
        for name, calibration in self._calibrations.items():
            correction.add_metric([name], calibration.factors[_SHOWN])
        yield correction

    async def _keep_training(self) -> None:
        pause = 1.0
        while True:
            if self._due():
                pause = 1.0 if await self._train() else min(2.0 * pause, _LONGEST_PAUSE)
            await self._save()
            await asyncio.sleep(pause * self._pace_s)

    def _due(self) -> bool:
        size = len(self._sample)
        new = self._sample.seen - self._learned_from
        return size >= _FIRST and new * _NEW_SHARE >= size

    async def _train(self) -> bool:
        seen = self._sample.seen
        try:
            grown = await self._trainer(self._sample.records())
        except TrainingError as error:
            self._failures += 1
            log.warning("The length forest could not be grown, and is tried again later: %s", error)
            return False
        self._learned_from = seen
        self._forest = grown.forest
        self._generation += 1
        self._calibrations = {
            name: Calibration(zip(r.ratios, r.truncated.tolist(), strict=True)) for name, r in grown.residuals.items()
        }
        return True

    async def _restore(self) -> None:
        records = await asyncio.to_thread(store.load, self._state_dir) if self._state_dir else None
        if records is None:
            return
        self._sample.restore(records)
        self._saved = self._sample.seen
        for row, tokens, truncated in zip(records.rows, records.tokens, records.truncated, strict=True):
            name = records.classes[int(row[CLASS])]
            self._window.add(name, int(row[PROMPT_TOKENS]), int(tokens), truncated=bool(truncated))
        log.info("Restored %d completions to predict lengths from", len(records))

    async def _save(self) -> None:
        seen = self._sample.seen
        if self._state_dir and self._saved != seen:
            loop, records = asyncio.get_running_loop(), self._sample.records()
            await loop.run_in_executor(self._writer, store.save, self._state_dir, records)
            self._saved = seen
