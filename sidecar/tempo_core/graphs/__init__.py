"""Pattern graphs: what a running program will still need, from how programs like it went.

A client sends one call at a time and never says how many will follow. But programs repeat: a tree of thoughts widens
and narrows, an agent's loop goes on. So every finished program is kept as a small graph, and a running one is matched
against them each time that a stage of it begins. From the graphs that still match come its sub-deadline, and what it
will still cost.

=============  ========================================================================================
`graph`        a finished program in less than 0.2 KB: its stages, and the tool time between them
`library`      the graphs of one class: similar ones are one, those rarely used go, matching is one array pass
`forecast`     what the matching graphs say of a program: sub-deadline, and the work that is left
`running`      a program that has not ended
`patterns`     the running programs; forecasts for their calls, graphs from their ends
=============  ========================================================================================
"""

from tempo_core.graphs.forecast import Forecast, forecast
from tempo_core.graphs.graph import Graph, GraphError, Stage
from tempo_core.graphs.library import GraphLibrary, Matches, Record
from tempo_core.graphs.patterns import PatternGraphs

__all__ = ["Forecast", "Graph", "GraphError", "GraphLibrary", "Matches", "PatternGraphs", "Record", "Stage", "forecast"]
