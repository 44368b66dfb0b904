"""Runs as files: `summary.json`, rows of figures, and `requests.jsonl`, a line for each unit with all of its calls."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from tempo_bench.accounting import CallRecord
from tempo_bench.summary import Run, summarise


def write_results(folder: Path, runs: Sequence[Run]) -> None:
    """Write both files into `folder`."""
    rows = [row for run in runs for row in summarise(run)]
    (folder / "summary.json").write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")
    with (folder / "requests.jsonl").open("wb") as lines:
        for run in runs:
            labels = {"load": run.load, "policy": run.policy, "seed": run.seed}
            for result, record in zip(run.results, run.records, strict=True):
                stages = [[_facts(call) for call in stage] for stage in record.stages]
                lines.write(orjson.dumps({**labels, **asdict(result), "stages": stages}) + b"\n")


def _facts(call: CallRecord) -> dict[str, Any]:
    """Times are seconds since the start of the run; `stamps` are of arrivals, each with its number of tokens."""
    names = ("sent_s", "ended_s", "prompt_tokens", "cached_tokens", "output_tokens", "stamps", "error")
    return {name: getattr(call, name) for name in names}
