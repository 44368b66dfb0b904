"""Who may reach what."""

from dataclasses import replace

from support.pool_objects import OPTIONS, made, part, routers, template

PROMETHEUS = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}


def selected_by(selector, labels):
    return selector["matchLabels"].items() <= labels.items()


def test_a_sidecar_can_be_reached_by_its_pool_s_routers_and_by_who_reads_metrics_only():
    objects = made(options=replace(OPTIONS, metrics_from=(PROMETHEUS,)))
    spec = part(objects, "NetworkPolicy", "demo-engine")["spec"]
    assert selected_by(spec["podSelector"], template(objects)["metadata"]["labels"])
    (rule,) = spec["ingress"]
    assert rule["ports"] == [{"port": 8001, "protocol": "TCP"}]
    theirs, metrics = rule["from"]
    assert selected_by(theirs["podSelector"], template(objects, "Deployment", "demo-router")["metadata"]["labels"])
    assert metrics == PROMETHEUS


def test_a_router_talks_to_its_pool_s_sidecars_and_to_dns_only():
    objects = made()
    spec = part(objects, "NetworkPolicy", "demo-router")["spec"]
    engines, dns = spec["egress"]
    assert selected_by(engines["to"][0]["podSelector"], template(objects)["metadata"]["labels"])
    assert {port["port"] for port in dns["ports"]} == {53}


def test_nodes_are_drained_one_pod_at_a_time():
    objects = made()
    for name, kind in (("demo-engine", "StatefulSet"), ("demo-router", "Deployment")):
        spec = part(objects, "PodDisruptionBudget", name)["spec"]
        assert spec["maxUnavailable"] == 1
        assert selected_by(spec["selector"], template(objects, kind, name)["metadata"]["labels"])


def test_services_find_their_pods_and_ports():
    objects = made()
    for name, kind, port in (("demo-engine", "StatefulSet", 8001), ("demo-router", "Deployment", 8000)):
        spec = part(objects, "Service", name)["spec"]
        assert spec["selector"].items() <= template(objects, kind, name)["metadata"]["labels"].items()
        assert [entry["targetPort"] for entry in spec["ports"]] == [port]


def test_engine_pods_resolve_before_they_are_ready_because_the_router_finds_out_itself():
    spec = part(made(), "Service", "demo-engine")["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)


def test_a_router_without_engines_still_answers():
    assert routers(made())["readinessProbe"]["httpGet"]["path"] == "/healthz"


def test_prometheus_reads_routers_sidecars_and_engines():
    objects = made(options=replace(OPTIONS, pod_monitor=True))
    spec = part(objects, "PodMonitor", "demo")["spec"]
    for kind, name in (("StatefulSet", "demo-engine"), ("Deployment", "demo-router")):
        assert selected_by(spec["selector"], template(objects, kind, name)["metadata"]["labels"])
    read = {(endpoint["port"], endpoint["path"]) for endpoint in spec["podMetricsEndpoints"]}
    assert read == {("http", "/metrics"), ("sidecar", "/metrics"), ("sidecar", "/engine/metrics")}
