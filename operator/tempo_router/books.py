"""One request's accounting, from its arrival to its end: what the client got, when, and what that was worth."""

from collections.abc import Callable

from tempo_api.intake import Resolved
from tempo_api.metering import Meter, meter_for
from tempo_api.openai import Ending
from tempo_core.gain import Outcome, RequestLedger
from tempo_core.slo import Pattern


class Books:
    """Watches an answer as it passes (`tempo_api.http.relay.Tap`).

    Prompt tokens are those of the answer's usage; a stream whose caller did not ask for usage keeps the estimate.

    Args:
        resolved: the request.
        arrival_s: when it arrived, by `clock`.
        prompt_tokens: an estimate.
        clock: seconds.

    """

    def __init__(self, resolved: Resolved, arrival_s: float, prompt_tokens: int, clock: Callable[[], float]) -> None:
        deadline_s = resolved.intake.deadline_s
        due_s = None if deadline_s is None else arrival_s + deadline_s
        self.arrival_s = arrival_s
        self.prompt_tokens = prompt_tokens
        """The estimate, until the answer says better."""
        self.on_tokens: Callable[[int], None] = lambda _: None
        """Called with the number of new tokens, as they pass."""
        self.on_begin: Callable[[int], None] = lambda _: None
        """Called with the status of each replica's answer, as it begins."""
        self._ledger = RequestLedger(resolved.slo, arrival_s, due_s)
        self._clock = clock
        self._meter: Meter | None = None

    def begin(self, status: int, content_type: str) -> None:
        """See `Tap`; begins anew where an earlier replica failed."""
        self._meter = meter_for(status, content_type)
        self.on_begin(status)

    def feed(self, chunk: bytes) -> bytes:
        """See `Tap`."""
        if self._meter is None:
            return chunk
        tokens, passed = self._meter.feed(chunk)
        if tokens:
            self._count(tokens)
        return passed

    def close(self) -> bytes:
        """See `Tap`."""
        if self._meter is None:
            return b""
        held = self._meter.close()
        if usage := self._meter.usage:
            self.prompt_tokens = usage.prompt_tokens
            self._count(usage.completion_tokens - self._ledger.output_tokens)
        return held

    def finish(self, ending: Ending) -> tuple[Ending, Outcome]:
        """How it really ended (a stream may carry an error of the engine's), and what it earned."""
        if ending is Ending.COMPLETED and self._meter and self._meter.failed:
            ending = Ending.UPSTREAM_FAILED
        outcome = self._ledger.finish(self._clock(), self.prompt_tokens)
        return ending, outcome if ending is Ending.COMPLETED else _unfinished(outcome, self._ledger.slo.pattern)

    def _count(self, tokens: int) -> None:
        if tokens > 0:
            self._ledger.tokens(self._clock(), tokens)
            self.on_tokens(tokens)


def _unfinished(outcome: Outcome, pattern: Pattern) -> Outcome:
    """An answer that broke off attains nothing; a reader keeps what was read, of any other use is only the whole."""
    if pattern is Pattern.LATENCY:
        return outcome._replace(attained=False)
    return outcome._replace(attained=False, gain=0.0, output_tokens=0)
