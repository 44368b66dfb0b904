"""The waiting queue, in the order of the last plan."""

from collections.abc import Iterable
from math import inf
from typing import Any

_ANY: Any = object


class RankedQueue(_ANY):  # type: ignore[misc]  # its base is vLLM's class, which the checker does not read
    """Put before vLLM's `FCFSRequestQueue`, a deque: newcomers, whom the plan does not know, stay behind all others."""

    def __init__(self, requests: Iterable[Any] = ()) -> None:
        super().__init__(requests)
        self._rank: dict[str, int] = {}

    def place(self, request: Any) -> float:
        """Where the plan put this request, from 0; `inf` if it knows nothing of it."""
        return self._rank.get(request.request_id, inf)

    def rank(self, order: Iterable[str]) -> None:
        """Take over a plan's order."""
        order = tuple(order)
        self._rank = dict(zip(order, range(len(order)), strict=True))
        waiting = {request.request_id: request for request in self}
        ranked = [waiting.pop(id_) for id_ in order if id_ in waiting]
        self.clear()
        self.extend(ranked)
        self.extend(waiting.values())

    def prepend_request(self, request: Any) -> None:
        """Put it where it belongs: vLLM prepends who lost a place, and that one would come straight back."""
        place = self.place(request)
        at = next((index for index, other in enumerate(self) if self.place(other) >= place), len(self))
        self.insert(at, request)
