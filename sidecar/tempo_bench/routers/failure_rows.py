"""Figures of replicas' failures: a row for each, and a table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.table import Table

from tempo_bench.routers.measure import milliseconds
from tempo_bench.routers.open_loop import End, Seen
from tempo_bench.routers.rows import Row

_HEADINGS: Final = {
    "requests": "requests",
    "refused": "errors before first byte",
    "broken": "broken and told",
    "truncated": "cut short",
    "hung": "hung",
    "longest_silence_s": "longest wait s",
    "detected_s": "left alone after s",
    "recovered_s": "back after s",
    "retries": "retries",
    "share": "its share",
    "first_p50_ms": "first byte p50 ms",
    "first_p99_ms": "p99 ms",
}


@dataclass(slots=True)
class Episode:
    """One replica's illness; times are those of the event loop's clock. A replica without a name: all were well."""

    fault: str
    replica: str
    struck_s: float
    healed_s: float = 0.0
    out_s: float | None = None
    """When the router first said that it leaves the replica alone."""
    back_s: float | None = None
    """When a good answer of its began that was asked for after it was healed."""
    retries: float = 0.0
    until_s: float = float("inf")
    """When the next one begins."""

    def first_good(self, seen: Sequence[Seen]) -> float | None:
        """See `back_s`."""
        good = (
            each.sent_s + (each.first_s or 0.0)
            for each in reversed(seen)
            if each.replica == self.replica and each.end is End.WHOLE and each.sent_s >= self.healed_s
        )
        return min(good, default=None)


def row_of(episode: Episode, seen: Sequence[Seen]) -> Row:
    """What clients saw whose requests ended while it lasted, or until the next one began.

    Times to the first byte and the replica's share of the answers are of requests sent while it was ill.
    """
    ended = [each for each in seen if episode.struck_s <= each.counts_s < episode.until_s]
    ends = Counter(each.end for each in ended)
    ill = [each for each in seen if episode.struck_s <= each.sent_s < episode.healed_s]
    firsts_s = [each.first_s for each in ill if each.first_s is not None]
    return {
        "fault": episode.fault or "none",
        "replica": episode.replica or None,
        "ill_s": round(episode.healed_s - episode.struck_s, 2),
        "requests": len(ended),
        **{end.value: ends[end] for end in End if end is not End.WHOLE},
        "longest_silence_s": round(max((each.silence_s for each in ended), default=0.0), 3),
        "detected_s": _since(episode.struck_s, episode.out_s),
        "recovered_s": _since(episode.healed_s, episode.back_s),
        "retries": round(episode.retries),
        "share": round(sum(each.replica == episode.replica for each in ill) / max(len(ill), 1), 3),
        "first_p50_ms": milliseconds(firsts_s, 50),
        "first_p99_ms": milliseconds(firsts_s, 99),
    }


def table_of(rows: Sequence[Row]) -> Table:
    """A line for each row."""
    table = Table(box=box.SIMPLE_HEAD, title="One of four replicas fails", title_justify="left")
    table.add_column("fault", no_wrap=True)
    for heading in _HEADINGS.values():
        table.add_column(heading, justify="right")
    for row in rows:
        bad = row["refused"] or row["truncated"] or row["hung"]
        table.add_row(row["fault"], *(_cell(row[key]) for key in _HEADINGS), style="red" if bad else None)
    return table


def _since(from_s: float, to_s: float | None) -> float | None:
    return None if to_s is None else round(max(to_s - from_s, 0.0), 2)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"
