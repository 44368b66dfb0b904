"""Dashboards and alerts ask only for what Tempo's processes say of themselves."""

import json
import re

import pytest
import yaml
from prometheus_client import CollectorRegistry
from promql_parser import parse

from support.chart import CHART, of_kind, render, the
from tempo_api.manifest import load_manifests
from tempo_api.openai import CALLERS_OWN, Ending
from tempo_operator.manifests import Options, pool_objects
from tempo_operator.metrics import registry as operator_registry
from tempo_router.fleet import Fleet
from tempo_router.metrics import Live
from tempo_router.metrics import Metrics as RouterMetrics
from tempo_sidecar.plugin import PluginStatus, status_metrics

ON = {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}
DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))
NAME = re.compile(r"\btempo_[a-z_]+")


def alerts(values=None):
    groups = the(render({**ON, **(values or {})}), "PrometheusRule")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels(path):
    return json.loads(path.read_text())["panels"]


def expressions():
    found = {rule["alert"]: rule["expr"] for rule in alerts()}
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel["targets"]:
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = target["expr"]
    return found


EXPRESSIONS = expressions()


def names_of(families):
    """Names of series, histograms' parts included."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {family.name + suffix for family in families for suffix in suffixes.get(family.type, [""])}


@pytest.fixture(scope="module")
def series(sidecar_registry):
    router = CollectorRegistry()
    RouterMetrics(router)
    router.register(Live(Fleet({"r0": "http://127.0.0.1:1"}), {"chat": 0}))
    operator = operator_registry(lambda: True, lambda: 0, lambda: 0)
    active = status_metrics(PluginStatus(state="active"))
    return names_of([*router.collect(), *sidecar_registry.collect(), *operator.collect(), *active])


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_an_expression_is_promql(expression):
    parse(expression.replace("$__rate_interval", "5m"))


def test_every_series_that_is_asked_for_exists(series):
    asked_for = {name for expression in EXPRESSIONS.values() for name in NAME.findall(expression)}
    assert asked_for - series == set()


def test_requests_count_in_alerts_and_dashboards_as_they_do_in_the_status():
    pattern = next(m for m in re.findall(r'outcome=~"([^"]+)"', EXPRESSIONS["TempoAttainmentLow"]))
    dropped = next(m for m in re.findall(r'outcome=~"([^"]+)"', EXPRESSIONS["TempoRequestsDropped"]))
    for ending in Ending:
        ours = ending not in CALLERS_OWN and bool(ending.status >= 500 or ending.dropped)
        assert bool(re.fullmatch(pattern, ending.value)) == (ours or ending is Ending.COMPLETED)
        is_dropped = ending not in CALLERS_OWN and bool(ending.dropped)
        assert bool(re.fullmatch(dropped, ending.value)) == is_dropped
    for name, expression in EXPRESSIONS.items():
        if "tempo_router_attained_total" in expression:
            assert pattern in expression, name


def test_pools_have_the_label_that_dashboards_tell_them_apart_by():
    manifests = load_manifests((CHART.parents[1] / "examples" / "quickstart.yaml").read_text())
    objects = pool_objects(manifests[-1], manifests[:-1], Options(image="tempo", pod_monitor=True))
    for endpoint in the(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]:
        assert {"targetLabel": "pool", "replacement": "quickstart"} in endpoint["relabelings"]


def test_every_alert_says_what_to_do():
    for rule in alerts():
        assert rule["labels"]["severity"]
        assert rule["annotations"]["summary"]
        assert len(rule["annotations"]["description"]) > 40


def test_thresholds_come_from_the_values():
    values = {"prometheusRule": {"enabled": True, "attainment": 0.75, "gainRatio": 0.125, "dropped": 0.375}}
    text = " ".join(rule["expr"] for rule in alerts(values))
    assert all(number in text for number in ("< 0.75", "< 0.125 *", "> 0.375"))


def test_an_absent_operator_is_only_missed_where_it_is_scraped():
    unwatched = {"serviceMonitor": {"enabled": False}}
    assert "TempoOperatorAbsent" in {rule["alert"] for rule in alerts()}
    assert "TempoOperatorAbsent" not in {rule["alert"] for rule in alerts(unwatched)}


def test_nothing_of_prometheus_operator_is_made_where_its_api_is_unknown():
    assert [d["kind"] for d in render() if d["apiVersion"].startswith("monitoring")] == []


def test_the_monitor_finds_the_operators_service():
    documents = render(ON)
    service, monitor = the(documents, "Service"), the(documents, "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_laid_out_without_overlap(path):
    taken = set()
    for panel in panels(path):
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_dashboards_reach_grafana_unchanged():
    maps = {
        name: text
        for config_map in of_kind(render(), "ConfigMap")
        if config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
        for name, text in config_map["data"].items()
    }
    assert {name: yaml.safe_load(text) for name, text in maps.items()} == {
        path.name: json.loads(path.read_text()) for path in DASHBOARDS
    }
