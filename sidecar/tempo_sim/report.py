"""The report of a sweep: one HTML file with its pictures inside, to be read without a network."""

from base64 import b64encode
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from tempo_sim import figures
from tempo_sim.rows import Row
from tempo_sim.sweep import Sweep
from tempo_sim.tables import columns, distinct, groups, lines


def render(rows: Sequence[Row], sweep: Sweep, capacity_per_s: float) -> str:
    """The report's HTML, of at least one row."""
    axis, other = ("replicas", "load") if len(sweep.replicas) > 1 else ("load", "replicas")
    parts = [(f"{other} {value}", [row for row in rows if row[other] == value]) for value in distinct(rows, other)]
    environment = Environment(loader=PackageLoader("tempo_sim"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2").render(
        sweep=sweep,
        capacity_per_s=capacity_per_s,
        pictures=[
            (title, [_image(figures.by(part, axis)), _image(figures.classes(part, axis))]) for title, part in parts
        ],
        columns=columns(rows),
        axis=axis,
        tables=[(title, lines(chosen)) for title, chosen in groups(rows)],
    )


def _image(svg: str) -> str:
    """A data URI: as an image, one picture's ids and styles stay out of the others'."""
    return "data:image/svg+xml;base64," + b64encode(svg.encode()).decode()
