"""The report of a sweep: one HTML file with its pictures inside, to be read without a network."""

from base64 import b64encode
from collections.abc import Sequence
from itertools import product
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from tempo_sim import figures
from tempo_sim.aggregate import over_seeds
from tempo_sim.contenders import ABLATIONS, ORACLE, TEMPO
from tempo_sim.rows import ALL, Row
from tempo_sim.scenarios import NONE
from tempo_sim.sweep import Sweep
from tempo_sim.tables import columns, distinct, groups, lines
from tempo_sim.timeline import Timeline

_ORDERS: Final = ("fcfs", "sarathi")
_OURS: Final = (TEMPO, ORACLE, *ABLATIONS)


def render(rows: Sequence[Row], sweep: Sweep, capacity_per_s: float, runs: Sequence[Timeline]) -> str:
    """The report's HTML, of at least one row; `runs` are the timelines of those that are `pictured`."""
    axis, other = ("replicas", "load") if len(sweep.replicas) > 1 else ("load", "replicas")
    labels = list(product(distinct(rows, other), distinct(rows, "scenario")))
    parts = [
        (
            f"{other} {value}" if scenario == NONE else f"{other} {value}, {scenario}",
            [row for row in rows if (row[other], row["scenario"]) == (value, scenario)],
        )
        for value, scenario in labels
    ]
    environment = Environment(loader=PackageLoader("tempo_sim"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2").render(
        sweep=sweep,
        capacity_per_s=capacity_per_s,
        pictures=[
            (title, [_image(figures.by(part, axis)), _image(figures.classes(part, axis))]) for title, part in parts
        ],
        timeline=_image(figures.timeline(runs)) if runs else None,
        columns=columns(rows),
        axis=axis,
        tables=[(title, lines(chosen)) for title, chosen in groups(rows)],
    )


def pictured(rows: Sequence[Row], sweep: Sweep) -> list[str]:
    """Whose runs are worth a look: arrival order, the best other baseline by gain, and Tempo's."""
    case = {"load": f"{max(sweep.loads):g}", "replicas": sweep.replicas[0], "scenario": sweep.scenarios[0]}
    gains = {name: over_seeds(rows, "service_gain", policy=name, slo_class=ALL, **case) for name in sweep.policies}
    others = {name: gain.mean for name, gain in gains.items() if gain and name not in {*_ORDERS, *_OURS}}
    best = sorted(others, key=others.__getitem__)[-1:]
    return [name for name in (*_ORDERS, *best, TEMPO) if name in sweep.policies]


def _image(svg: str) -> str:
    """A data URI: as an image, one picture's ids and styles stay out of the others'."""
    return "data:image/svg+xml;base64," + b64encode(svg.encode()).decode()
