"""The report of a demonstration: one HTML file with its pictures inside, to be read without a network."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tempo_bench import figures
from tempo_bench.capacity import Capacity
from tempo_bench.summary import ALL, Run, names, pooled
from tempo_bench.tables import COLUMNS, cell, ratio, rows, title
from tempo_core.slo import Pattern, SLOClass


@dataclass(frozen=True, slots=True)
class Settings:
    """What the runs were made with."""

    model: str
    engine_args: tuple[str, ...]
    classes: Mapping[str, SLOClass]
    capacity_per_s: float
    measured: Capacity | None
    """None where the rate was given."""
    machine: str


def render(runs: Sequence[Run], settings: Settings) -> str:
    """The report's HTML.

    Raises:
        ValueError: if there is no run.

    """
    if not any(run.results for run in runs):
        raise ValueError("there is nothing to report: no request was sent")
    environment = Environment(loader=PackageLoader("tempo_bench"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2").render(
        headlines=[_headline(runs, load) for load in names(runs, "load")],
        columns=[heading for heading, _ in COLUMNS],
        tables=[(load, _lines(runs, load)) for load in names(runs, "load")],
        pictures={
            "bars": _image(figures.bars(runs)),
            "distributions": _image(figures.distributions(runs, settings.classes)),
            "timelines": _image(figures.timelines(runs)),
        },
        settings=settings,
        objectives={name: _objective(slo) for name, slo in settings.classes.items()},
        policies=[title(policy) for policy in names(runs, "policy")],
        seeds=names(runs, "seed"),
        workloads=_workloads(runs),
    )


def _headline(runs: Sequence[Run], load: str) -> dict[str, Any]:
    """The last policy against the first, all classes together."""
    policies = names(runs, "policy")
    first, last = (pooled(runs, load, policy, ALL) for policy in (policies[0], policies[-1]))
    figures_of = {
        key: {
            "first": cell(key, first[key]),
            "last": cell(key, last[key]),
            "ratio": ratio(last[key], first[key]) if len(policies) > 1 else "",
        }
        for key in ("service_gain", "attainment")
    }
    return {"load": load, "first": title(policies[0]), "last": title(policies[-1]), **figures_of}


def _lines(runs: Sequence[Run], load: str) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for slo_class, policy, cells in rows(runs, load):
        new = not lines or lines[-1]["slo_class"] != slo_class
        lines.append(
            {"slo_class": slo_class, "new": new, "policy": policy, "cells": cells, "is_ratio": " / " in policy}
        )
    return lines


def _workloads(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Each run's workload; policies that got the same one share its fingerprint."""
    return [
        {
            "load": run.load,
            "policy": title(run.policy),
            "seed": run.seed,
            "rate": f"{run.rate_per_s:.3f}",
            "units": len(run.results),
            "failed": sum(result.error is not None for result in run.results),
            "fingerprint": run.fingerprint,
        }
        for run in runs
    ]


def _objective(slo: SLOClass) -> str:
    o = slo.objectives
    match slo.pattern:
        case Pattern.LATENCY:
            return f"TTFT {o.ttft_s:g} s, mean TBT {1e3 * o.tbt_s:g} ms"
        case Pattern.DEADLINE:
            return f"TTLT {o.ttlt_s:g} s"
        case Pattern.COLLECTIVE:
            per_stage = o.per_stage_s < o.end_to_end_s
            return f"{o.per_stage_s:g} s times its stages" if per_stage else f"{o.end_to_end_s:g} s end to end"
        case Pattern.BEST_EFFORT:
            return "none"


def _image(svg: str) -> str:
    """A data URI: as an image, one picture's ids and styles stay out of the others'."""
    return "data:image/svg+xml;base64," + b64encode(svg.encode()).decode()
