"""What the span of a request says: OpenTelemetry's names for HTTP and generative AI, and `tempo.` for the rest.

No word of what was asked or answered, no query, no key, and nothing that names a person: of tenants only those that
whoever runs the pool has named, with an API key.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Final

from aiohttp import hdrs, web
from opentelemetry.trace import Span, StatusCode

from tempo_api.openai import Ending
from tempo_router.access import Entry, entry_of, principal_of
from tempo_router.forward import Errand

_OPERATIONS: Final = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "chat",
}
_LONGEST: Final = 256
"""Of a path, which a client chooses."""


def opening(request: web.Request) -> tuple[str, dict[str, str]]:
    """The span's name, and what is known of the request as it comes."""
    resource = request.match_info.route.resource
    method = request.method if request.method in hdrs.METH_ALL else "_OTHER"
    said = {
        "http.request.method": method,
        "url.path": request.path[:_LONGEST].encode(errors="replace").decode(),
        "url.scheme": request.scheme,
    }
    if operation := _OPERATIONS.get(request.path):
        said["gen_ai.operation.name"] = operation
    name = "HTTP" if method == "_OTHER" else method
    if resource is None:
        return name, said
    said["http.route"] = resource.canonical
    return f"{name} {resource.canonical}", said


@dataclass(slots=True, eq=False)
class Trace:
    """A request's span, and what is known of its way; times are the router's clock's."""

    span: Span
    errand: Errand | None = None
    """None until it wants a replica."""
    epoch_s: float = 0.0
    """Unix time when that clock stood at zero."""
    tries: list[tuple[str, float]] = field(default_factory=list)
    """Replicas, and when it went to each."""

    def end(self, request: web.Request, response: web.StreamResponse | None) -> None:
        """Say how it went. No response: the client left before there was one."""
        span = self.span
        if span.is_recording():
            entry, status = entry_of(request), None if response is None else response.status
            ending, error = entry.ending, _error(entry.ending, status)
            said = self._way() | {
                "http.response.status_code": status,
                "error.type": error,
                "tempo.ending": ending and ending.value,
                "tempo.slo_class": entry.slo_class,
                "tempo.tenant": principal_of(request).grant.tenant,
            }
            span.set_attributes({name: value for name, value in said.items() if value is not None})
            for name, at_s, what in self._events(entry):
                span.add_event(name, what, int((self.epoch_s + at_s) * 1e9))
            if ending and ending.dropped and ending is not Ending.CLIENT_CLOSED:
                span.add_event("tempo.shed", {"tempo.reason": ending.dropped})
            if error:
                span.set_status(StatusCode.ERROR)
        span.end()

    def _way(self) -> dict[str, str | float | None]:
        """How long it was held, and where it went."""
        if self.errand is None:
            return {}
        held_s = self.errand.turn.since_s
        until_s = self.tries[0][1] if self.tries else time.time() - self.epoch_s
        return {
            "gen_ai.request.model": self.errand.model,
            "tempo.wait_s": until_s - held_s if held_s else 0.0,
            "tempo.replica": self.tries[-1][0] if self.tries else None,
            "tempo.retries": len(self.tries) - 1 if self.tries else None,
        }

    def _events(self, entry: Entry) -> Iterator[tuple[str, float, dict[str, str]]]:
        """Name, when by the router's clock, attributes."""
        if self.errand is None:
            return
        turn = self.errand.turn
        if turn.since_s:
            yield "tempo.held", turn.since_s, {}
        for count, (replica, at_s) in enumerate(self.tries):
            if count or turn.since_s:
                yield "tempo.retried" if count else "tempo.released", at_s, {"tempo.replica": replica}
        if entry.outcome and isfinite(entry.outcome.ttft_s):
            yield "tempo.first_token", turn.arrival_s + entry.outcome.ttft_s, {}


def _error(ending: Ending | None, status: int | None) -> str | None:
    """What went wrong, in words of which there are few; what a client is to blame for is no error of a server's."""
    if ending is None or ending is Ending.UPSTREAM_REFUSED:  # the status is the engine's own
        return str(status) if status and status >= 500 else None
    return ending.value if ending.status >= 500 else None
