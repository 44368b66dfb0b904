"""The SLO tracker: follows one answer as it passes, and knows at its end what it was worth."""

from collections.abc import Callable
from math import isnan

import numpy as np

from tempo_api.metering import Meter, StreamMeter, Usage, meter_for
from tempo_api.openai import APIError, Ending, error_event
from tempo_core.gain import Outcome, RequestLedger
from tempo_core.lengths import GRID
from tempo_sidecar.analyse import Work


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
        self._ledger = RequestLedger(work.slo, work.arrival_s, work.deadline_s)
        self._meter: Meter | None = None
        self._clock = clock
        self._on_tokens = on_tokens
        self._drop_usage = drop_usage

    def begin(self, status: int, content_type: str) -> None:
        """See `Tap`. An answer that is neither a stream nor a good JSON body is passed on unread."""
        self._meter = meter_for(status, content_type, drop_usage=self._drop_usage)

    def feed(self, chunk: bytes) -> bytes:
        """See `Tap`."""
        if self._meter is None:
            return chunk
        tokens, passed = self._meter.feed(chunk)
        if tokens:
            self._ledger.tokens(self._clock(), tokens)
            self._on_tokens(tokens)
        return passed

    def close(self) -> bytes:
        """See `Tap`. A stream that ended without its last word was cut short, and says so."""
        if self._meter is None:
            return b""
        held = self._meter.close()
        self._count_missing()
        if self._meter.done:
            return held
        return held + error_event(APIError(Ending.UPSTREAM_FAILED, "The engine broke off its answer."))

    @property
    def streamed(self) -> bool:
        """The answer is a stream."""
        return isinstance(self._meter, StreamMeter)

    @property
    def truncated(self) -> bool:
        """It ended because it had reached its length limit."""
        return self._meter is not None and self._meter.truncated

    @property
    def broken(self) -> bool:
        """The answer came with a good status, and with an error in it or without its end."""
        return self._meter is not None and (self._meter.failed or not self._meter.done)

    @property
    def learnable(self) -> bool:
        """Its length is known exactly, and is one that the model predicts."""
        return self.work.single and self._usage is not None and self._ledger.output_tokens > 0

    def covered(self, quantile: float) -> bool:
        """Whether its length is at most what was predicted for `quantile`."""
        return self._ledger.output_tokens <= float(np.interp(quantile, GRID, self.work.lengths.grid))

    def finish(self) -> Outcome:
        """Close the books, once."""
        usage = self._usage
        prompt_tokens = usage.prompt_tokens if usage else self.work.prompt_tokens
        return self._ledger.finish(self._clock(), prompt_tokens)

    @property
    def _usage(self) -> Usage | None:
        return self._meter.usage if self._meter else None

    def _count_missing(self) -> None:
        """Tokens that no event showed (the end-of-text token, half a character) appeared with the last that did."""
        usage = self._usage
        missing = (usage.completion_tokens if usage else 0) - self._ledger.output_tokens
        if missing > 0:
            at_s = self._ledger.last_s
            self._ledger.tokens(self._clock() if isnan(at_s) else at_s, missing)
            self._on_tokens(missing)
