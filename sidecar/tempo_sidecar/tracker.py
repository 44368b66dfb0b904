"""The SLO tracker: follows one answer as it passes, and knows at its end what it was worth."""

from collections.abc import Callable
from math import isnan
from typing import Final

import numpy as np

from tempo_api.openai import APIError, Ending, StreamMeter, Usage, error_event, read_answer
from tempo_core.gain import Outcome, RequestLedger
from tempo_core.lengths import GRID
from tempo_sidecar.analyse import Work

_LONGEST_ANSWER: Final = 32 << 20
"""A longer whole answer passes, but is not read."""


class Tracker:
    """A `tempo_api.http.relay.Tap` that keeps a `RequestLedger`.

    Args:
        work: the request.
        clock: absolute seconds, the clock of `work`'s times.
        drop_usage: keep a stream's usage event from the client, who did not ask for it.
        on_tokens: told of new output tokens.

    """

    def __init__(
        self, work: Work, clock: Callable[[], float], on_tokens: Callable[[int], None], *, drop_usage: bool
    ) -> None:
        self.work = work
        self.streamed = False
        self._ledger = RequestLedger(work.slo, work.arrival_s, work.deadline_s)
        self._meter = StreamMeter(drop_usage=drop_usage)
        self._clock = clock
        self._on_tokens = on_tokens
        self._whole: bytearray | None = None
        self._usage: Usage | None = None
        self.truncated = False
        """It ended because it had reached `max_tokens`."""

    def begin(self, status: int, content_type: str) -> None:
        """See `Tap`. An answer that is neither a stream nor a good JSON body is passed on unread."""
        if status >= 400:
            return
        self.streamed = content_type == "text/event-stream"
        if content_type == "application/json":
            self._whole = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """See `Tap`."""
        if self.streamed:
            fed = self._meter.feed(chunk)
            if fed.tokens:
                self._ledger.tokens(self._clock(), fed.tokens)
                self._on_tokens(fed.tokens)
            return fed.passed
        if self._whole is not None:
            self._whole += chunk
            if len(self._whole) > _LONGEST_ANSWER:
                self._whole = None
        return chunk

    def close(self) -> bytes:
        """See `Tap`. A stream that ended without `[DONE]` was cut short, and says so."""
        if self._whole is not None:
            self._usage, self.truncated = read_answer(bytes(self._whole))
            self._count_missing(self._clock())
        if not self.streamed:
            return b""
        held = self._meter.close()
        self._usage, self.truncated = self._meter.usage, self._meter.truncated
        self._count_missing(self._ledger.last_s)
        if self._meter.done:
            return held
        return held + error_event(APIError(Ending.UPSTREAM_FAILED, "The engine broke off its answer."))

    @property
    def broken(self) -> bool:
        """The answer came with a good status, and with an error in it or without its end."""
        return self.streamed and (self._meter.failed or not self._meter.done)

    @property
    def learnable(self) -> bool:
        """Its length is known exactly, and is one that the model predicts."""
        return self.work.single and self._usage is not None and self._ledger.output_tokens > 0

    def covered(self, quantile: float) -> bool:
        """Whether its length is at most what was predicted for `quantile`."""
        return self._ledger.output_tokens <= float(np.interp(quantile, GRID, self.work.lengths.grid))

    def finish(self) -> Outcome:
        """Close the books, once."""
        prompt_tokens = self._usage.prompt_tokens if self._usage else self.work.prompt_tokens
        return self._ledger.finish(self._clock(), prompt_tokens)

    def _count_missing(self, at_s: float) -> None:
        """Tokens that no event showed (the end-of-text token, half a character) appeared with the last that did."""
        total = (self._usage.completion_tokens or 0) if self._usage else 0
        missing = total - self._ledger.output_tokens
        if missing > 0:
            self._ledger.tokens(self._clock() if isnan(at_s) else at_s, missing)
            self._on_tokens(missing)
