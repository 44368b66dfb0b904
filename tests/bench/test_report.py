import re
from base64 import b64decode
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from tempo_bench.accounting import UnitResult
from tempo_bench.capacity import Capacity
from tempo_bench.report import Settings, render
from tempo_bench.summary import Run
from tempo_bench.tables import cell, comparison, ratio, rows
from tempo_core.slo import GainRule, Objectives, Pattern, SLOClass

CLASSES = {
    "chat": SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=2.0, tbt_s=0.15)),
    "tool": SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=15.0), GainRule(weight=3.0, decay=float("inf"))),
    "agent": SLOClass("agent", Pattern.COLLECTIVE, Objectives(per_stage_s=15.0)),
}
SETTINGS = Settings("a-model", ("--max-num-seqs=32",), CLASSES, 1.25, Capacity(1.25, 300.0, 240.0), "2 cores <unnamed>")
CHAT = UnitResult("c", "chat", 0.0, 4.0, 1, 20, 40, 1.0, 4.0, 100.0, 80.0, True, None, (0.1, 0.3))
TOOL = UnitResult("t", "tool", 1.0, 9.0, 1, 50, 30, None, 8.0, 50.0, 0.0, False, None, ())
AGENT = UnitResult("a", "agent", 0.0, 10.0, 8, 800, 400, None, 10.0, 1600.0, 1600.0, True, None, ())
LOST = replace(TOOL, id="l", ttlt_s=None, gain=0.0, error="HTTP 500")


def run(policy, *results, load="overload", seed=1):
    return Run(load, policy, seed, 1.5, "fingerprint", results)


FCFS = run("fcfs", CHAT, TOOL, AGENT, LOST)
TEMPO = run("tempo", replace(CHAT, gain=300.0), replace(TOOL, attained=True), AGENT, TOOL)


@pytest.fixture(scope="module")
def html():
    return render([FCFS, TEMPO], SETTINGS)


def check_pictures(html):
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert len(pictures) == 3
    for picture in pictures:
        assert ET.fromstring(b64decode(picture)).tag.endswith("svg")


def test_the_report_is_one_file_with_three_pictures_and_needs_no_network(html):
    check_pictures(html)
    assert not re.search(r'(?:src|href)="(?!data:)', html)


def test_a_single_policy_and_two_loads_make_a_report_too():
    html = render([run("fcfs", CHAT, load="light"), FCFS], replace(SETTINGS, measured=None))
    check_pictures(html)
    assert "1.25 units/s, given" in html


@pytest.mark.parametrize(
    "text",
    [
        "--max-num-seqs=32",
        "2 cores &lt;unnamed&gt;",
        "1.25 units/s",
        "300 output tokens/s",
        "decay hard",
        "TTFT 2 s, mean TBT 150 ms",
        "15 s times its stages",
        "fingerprint",
    ],
)
def test_the_report_says_what_it_was_made_with(html, text):
    assert text in html


def test_there_is_no_report_of_nothing():
    with pytest.raises(ValueError, match="no request was sent"):
        render([run("fcfs")], SETTINGS)


def test_the_headline_compares_the_last_policy_with_the_first(html):
    # 1750 against 2000; two of four against three of four.
    assert "<b>1.14x</b>" in html
    assert "<b>1.50x</b>" in html


def test_a_table_has_a_ratio_row_under_each_class():
    names = [(slo_class, policy) for slo_class, policy, _ in rows([FCFS, TEMPO], "overload")]
    assert names[:3] == [("agent", "FCFS (vLLM)"), ("agent", "Tempo"), ("agent", "Tempo / FCFS (vLLM)")]
    assert len(names) == 3 * 4


def test_a_single_policy_has_no_ratios():
    assert all(" / " not in policy for _, policy, _ in rows([FCFS], "overload"))


def test_the_terminal_table_names_load_rate_seed_and_each_class_once():
    console = Console(width=140)
    with console.capture() as capture:
        console.print(comparison([FCFS, TEMPO], "overload"))
    assert "overload: 1.50 units/s, seed 1" in capture.get()
    assert [line.split()[0] for line in capture.get().splitlines() if "FCFS (vLLM) " in line and " / " not in line] == [
        "agent",
        "chat",
        "tool",
        "all",
    ]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("attainment", 0.125, "12.5%"),
        ("tbt_p99_s", 0.0421, "42 ms"),
        ("ttft_p50_s", 1.234, "1.23 s"),
        ("service_gain", 12345.6, "12,346"),
        ("ttft_p50_s", None, "-"),
    ],
)
def test_figures_are_written_for_reading(key, value, text):
    assert cell(key, value) == text


@pytest.mark.parametrize(
    ("ours", "theirs", "text"), [(3.0, 2.0, "1.50x"), (3.0, 0.0, "-"), (None, 2.0, "-"), (0.0, 2.0, "0.00x")]
)
def test_a_ratio_is_given_only_where_it_says_something(ours, theirs, text):
    assert ratio(ours, theirs) == text
