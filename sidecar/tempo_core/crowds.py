"""Which tenant has more at the engines than its part, while others have something there too.

Behind its places an engine that ranks is given a queue to choose from (`routing.RANKED_LOOKAHEAD`), and it knows of no
tenants. So who fills that queue is decided here, by what is in flight. Time is an argument, absolute seconds.
"""

from collections import Counter, OrderedDict
from typing import Final

_TIMES_OTHERS: Final = 2.0
"""So many times what the others have on average nobody is said to crowd: those who all want much have alike."""
_PRESENT_S: Final = 30.0
"""For so long after its last request a tenant's part is kept for it."""
_TENANTS: Final = 10_000


class Crowds:
    """Counts what each tenant has in flight."""

    def __init__(self) -> None:
        self._in_flight: Counter[str] = Counter()
        self._total = 0
        self._seen_s: OrderedDict[str, float] = OrderedDict()  # the longest unseen first

    def begins(self, tenant: str, now_s: float) -> None:
        """A request of the tenant goes to an engine."""
        self._in_flight[tenant] += 1
        self._total += 1
        self._sees(tenant, now_s)

    def ends(self, tenant: str, now_s: float) -> None:
        """One of them has ended."""
        self._in_flight[tenant] -= 1
        self._total -= 1
        if not self._in_flight[tenant]:
            del self._in_flight[tenant]
        self._sees(tenant, now_s)

    def crowds(self, tenant: str, places: int, now_s: float) -> bool:
        """Whether it has its even part of so many places in flight, and more than others have; a lone one never."""
        while self._seen_s and now_s - next(iter(self._seen_s.values())) > _PRESENT_S:
            self._seen_s.popitem(last=False)
        others = len(self._seen_s) - (tenant in self._seen_s)
        if not others:
            return False
        own = self._in_flight[tenant]
        return own >= max(places / (others + 1), _TIMES_OTHERS * (self._total - own) / others)

    def _sees(self, tenant: str, now_s: float) -> None:
        self._seen_s[tenant] = now_s
        self._seen_s.move_to_end(tenant)
        if len(self._seen_s) > _TENANTS:
            self._seen_s.popitem(last=False)
