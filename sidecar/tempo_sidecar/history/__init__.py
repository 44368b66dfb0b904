"""The graphs of finished programs, kept over restarts (SQLite) or shared by nodes (Redis).

A graph holds lengths and times, nothing of what was said. Only warmth is at stake: without a store, or with one that
fails, forecasts begin from nothing and serving goes on.

================  =====================================================================================
`store`           the interface, and its one error
`sqlite_store`    a file on the node
`redis_store`     a Redis that several nodes share
`stores`          which of them a setting names
`keeper`          between the requests and a store: forecasts, loads, writes behind, retries
`metrics`         what the keeper counts
================  =====================================================================================
"""

from tempo_sidecar.history.keeper import HistoryKeeper, Pacing
from tempo_sidecar.history.metrics import history_metrics
from tempo_sidecar.history.store import HistoryError, HistoryStore
from tempo_sidecar.history.stores import open_store

__all__ = ["HistoryError", "HistoryKeeper", "HistoryStore", "Pacing", "history_metrics", "open_store"]
