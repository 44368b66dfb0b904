"""The report's pictures, as SVG text. Only this module draws; it holds no state and needs no display."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from tempo_bench.accounting import UnitResult
from tempo_bench.summary import Run, class_names, names, pooled
from tempo_bench.tables import cell, title
from tempo_core.slo import Pattern, SLOClass

_COLOURS: Final = {"fcfs": "#a9b0ba", "tempo": "#2563c9"}
_OTHERS: Final = ("#d97706", "#0d9488", "#9333ea")
_STYLE: Final[Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa3ad",
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceff3",
    "legend.frameon": False,
    "svg.hashsalt": "tempo",
}


def bars(runs: Sequence[Run]) -> str:
    """SLO attainment and service gain by class, a row for each load."""
    loads, policies, classes = names(runs, "load"), names(runs, "policy"), class_names(runs)
    width = 0.8 / len(policies)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.0, 2.8 * len(loads)), layout="constrained")
        grid = figure.subplots(len(loads), 2, squeeze=False)
        for load, row in zip(loads, grid, strict=True):
            for axes, key, label in zip(
                row, ("attainment", "service_gain"), ("SLO attainment", "Service gain"), strict=True
            ):
                for index, policy in enumerate(policies):
                    values = [pooled(runs, load, policy, name)[key] or 0.0 for name in classes]
                    at = np.arange(len(classes)) + (index - (len(policies) - 1) / 2) * width
                    drawn = axes.bar(at, values, width * 0.94, color=_colour(policy, index), label=title(policy))
                    axes.bar_label(drawn, [cell(key, value) for value in values], fontsize=7, padding=1)
                axes.set_xticks(range(len(classes)), classes)
                axes.set_title(f"{label}, {load}")
                axes.grid(visible=False, axis="x")
                if key == "attainment":
                    axes.set_ylim(0.0, 1.12)
                    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        return _svg(figure, grid[0][0])


def distributions(runs: Sequence[Run], classes: Mapping[str, SLOClass]) -> str:
    """Share of requests answered within a time: first token of streams, last token of the rest; a row for each load."""
    loads, served = names(runs, "load"), class_names(runs)[:-1]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.0, 2.5 * len(loads)), layout="constrained")
        grid = figure.subplots(len(loads), len(served), squeeze=False, sharey=True)
        for load, row in zip(loads, grid, strict=True):
            for axes, name in zip(row, served, strict=True):
                _distribution(axes, [run for run in runs if run.load == load], classes[name])
                axes.set_title(f"{name}, {load}")
            row[0].set_ylabel("share of requests")
        return _svg(figure, grid[0][-1])


def timelines(runs: Sequence[Run]) -> str:
    """Gain earned so far and units in flight over time, of the first seed; a row for each load."""
    loads, seed = names(runs, "load"), runs[0].seed
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.0, 2.5 * len(loads)), layout="constrained")
        grid = figure.subplots(len(loads), 2, squeeze=False)
        for load, (left, right) in zip(loads, grid, strict=True):
            shown = [run for run in runs if (run.load, run.seed) == (load, seed)]
            for index, run in enumerate(shown):
                style = {"color": _colour(run.policy, index), "label": title(run.policy)}
                left.step(*_earned(run.results), where="post", **style)
                right.step(*_in_flight(run.results), where="post", **style)
            arrivals_end = max(result.arrival_s for run in shown for result in run.results)
            for axes, label in ((left, "Service gain so far"), (right, "Units in flight")):
                axes.axvline(arrivals_end, color="#5b6675", lw=1.0, ls=":")
                axes.set_title(f"{label}, {load}")
                axes.set_xlabel("seconds")
                axes.set_ylim(bottom=0)
        return _svg(figure, grid[0][0])


def _distribution(axes: Axes, runs: Sequence[Run], slo: SLOClass) -> None:
    streamed = slo.pattern is Pattern.LATENCY
    target_s = slo.objectives.ttft_s if streamed else slo.deadline_s()
    seen = [] if slo.pattern is Pattern.COLLECTIVE else [target_s]
    curves = []
    for policy in names(runs, "policy"):
        results = [r for run in runs if run.policy == policy for r in run.results if r.slo_class == slo.name]
        times = sorted(t for r in results if (t := r.ttft_s if streamed else r.ttlt_s) is not None)
        # What never ended stays missing, so that its line ends below 1.
        curves.append((policy, times, np.arange(1, len(times) + 1) / max(len(results), 1)))
        seen += times
    low, high = _decades(seen)
    for index, (policy, times, shares) in enumerate(curves):
        at, share = [low, *times, high], [0.0, *shares, shares[-1] if times else 0.0]
        axes.step(at, share, where="post", color=_colour(policy, index), label=title(policy))
    if slo.pattern is not Pattern.COLLECTIVE:
        axes.axvline(target_s, color="#c2410c", lw=1.0, ls="--", label="SLO")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(low, high)
    axes.set_ylim(0.0, 1.03)
    axes.set_xlabel(f"time to {'first' if streamed else 'last'} token, s")


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten around these values."""
    low, high = (min(values), max(values)) if values else (1.0, 1.0)
    return 10.0 ** np.floor(np.log10(low)), 10.0 ** (np.floor(np.log10(high)) + 1.0)


def _earned(results: Sequence[UnitResult]) -> tuple[list[float], list[float]]:
    ended = sorted(results, key=lambda result: result.ended_s)
    gains = np.cumsum([result.gain for result in ended])
    return [0.0, *(result.ended_s for result in ended)], [0.0, *gains.tolist()]


def _in_flight(results: Sequence[UnitResult]) -> tuple[list[float], list[int]]:
    changes = sorted([(result.arrival_s, 1) for result in results] + [(result.ended_s, -1) for result in results])
    return [0.0, *(at for at, _ in changes)], [0, *np.cumsum([change for _, change in changes]).tolist()]


def _colour(policy: str, index: int) -> str:
    return _COLOURS.get(policy, _OTHERS[index % len(_OTHERS)])


def _svg(figure: Figure, labelled: Axes) -> str:
    """The figure with the legend of one of its axes on top, where it covers nothing."""
    handles, labels = labelled.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().decode()
