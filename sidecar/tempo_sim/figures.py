"""A sweep's pictures, as SVG text. Only this module draws; it holds no state and needs no display."""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tempo_sim.aggregate import Estimate, against, over_seeds
from tempo_sim.rows import ALL, Row
from tempo_sim.tables import distinct
from tempo_sim.timeline import Timeline

_STYLE: Final[Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#eceff3",
    "legend.frameon": False,
    "legend.fontsize": 7.0,
    "svg.hashsalt": "tempo",
}
_DEPTH: Final = ("#2563c9", "#d5dbe3")
_OURS: Final = {"tempo": "#2563c9", "oracle": "#111827"}


def by(rows: Sequence[Row], axis: str) -> str:
    """Attainment, gain and goodput against `axis` ("load" or "replicas"), with the seeds' 95% confidence as bars."""
    base = str(rows[0]["policy"])
    panels: tuple[tuple[str, Callable[..., Estimate | None], dict[str, Any]], ...] = (
        ("SLO attainment", over_seeds, {"key": "attainment"}),
        (f"Service gain, times {base}'s", against, {"key": "service_gain", "base": base}),
        (f"Goodput gain, times {base}'s", against, {"key": "goodput_gain", "base": base}),
    )
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11.0, 3.4), layout="constrained")
        for axes, (title, measure, options) in zip(figure.subplots(1, 3), panels, strict=True):
            _curves(axes, rows, axis, lambda m=measure, o=options, **labels: m(rows, **o, **labels, slo_class=ALL))
            axes.set_title(title)
            axes.set_xlabel("load, in capacities" if axis == "load" else axis)
        figure.axes[0].yaxis.set_major_formatter(PercentFormatter(1.0))
        return _svg(figure)


def classes(rows: Sequence[Row], axis: str) -> str:
    """Each class's attainment against `axis`."""
    names = [str(name) for name in distinct(rows, "slo_class") if name != ALL]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11.0, 3.2), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            _curves(axes, rows, axis, lambda n=name, **labels: over_seeds(rows, "attainment", slo_class=n, **labels))
            axes.set_title(f"SLO attainment, {name}")
            axes.set_xlabel("load, in capacities" if axis == "load" else axis)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        return _svg(figure)


def timeline(runs: Sequence[Timeline]) -> str:
    """What these runs did over time, side by side: requests that ran and waited above, gain by class below."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11.0, 4.0), layout="constrained")
        grid = figure.subplots(2, len(runs), sharex=True, sharey="row", squeeze=False)
        for (above, below), run in zip(grid.T, runs, strict=True):
            at_s = [run.bin_s * (place + 0.5) for place in range(len(run.running))]
            above.stackplot(at_s, run.running, run.waiting, labels=("running", "waiting"), colors=_DEPTH)
            below.stackplot(at_s, *run.gain_per_s.values(), labels=tuple(run.gain_per_s))
            above.set_title(run.policy)
            below.set_xlabel("seconds")
        grid[0, 0].set_ylabel("requests a replica")
        grid[1, 0].set_ylabel("gain a second")
        for axes in grid[:, -1]:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return _written(figure)


def _curves(axes: Axes, rows: Sequence[Row], axis: str, measure: Callable[..., Estimate | None]) -> None:
    points = sorted(distinct(rows, axis), key=lambda value: float(str(value)))
    for policy in map(str, distinct(rows, "policy")):
        values = [(float(str(at)), measure(policy=policy, **{axis: at})) for at in points]
        known = [(at, value) for at, value in values if value is not None]
        style = {"color": _OURS[policy], "lw": 2.0, "zorder": 3} if policy in _OURS else {"lw": 1.0}
        axes.errorbar(
            [at for at, _ in known],
            [value.mean for _, value in known],
            [value.margin for _, value in known],
            marker=".",
            capsize=2.0,
            label=policy,
            **style,
        )
    axes.set_ylim(bottom=0.0)


def _svg(figure: Figure) -> str:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 9))
    return _written(figure)


def _written(figure: Figure) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().decode()
