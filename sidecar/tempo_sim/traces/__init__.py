"""Real traces as workloads: Azure's, Mooncake's, agents' sessions, and our own format.

No trace carries SLOs: which class a unit gets is a rule of the reader's, never the trace's (our own format apart).
"""

from tempo_sim.traces.draft import Draft, Options
from tempo_sim.traces.errors import TraceError
from tempo_sim.traces.own import write_trace
from tempo_sim.traces.read import FORMATS, at_rate, cut, read_trace
from tempo_sim.traces.rules import Rule, by_label, by_pattern, by_shares

__all__ = [
    "FORMATS",
    "Draft",
    "Options",
    "Rule",
    "TraceError",
    "at_rate",
    "by_label",
    "by_pattern",
    "by_shares",
    "cut",
    "read_trace",
    "write_trace",
]
