"""Secrets in a pool: who may ask, what clients see of TLS, and where programs are remembered."""

import json
from dataclasses import replace

import pytest

from support.manifest_cases import SECRET
from support.pool_objects import OPTIONS, config, containers, made, part, routers, template
from tempo_operator.manifests.names import Names
from tempo_operator.scrape import metrics_url

KEYED = {"auth": {"secretRef": {"name": "api-keys", "key": "k"}}}
TLS = {"tls": {"secretRef": {"name": "cert"}}}


def router_spec(objects):
    return template(objects, "Deployment", "demo-router")["spec"]


def following(argv, option):
    return argv[argv.index(option) + 1]


def mounted(objects, path):
    """The volume that is seen there, whole and read-only: a single mounted file would never see an update."""
    [at] = [mount for mount in routers(objects)["volumeMounts"] if mount["mountPath"] == path]
    assert at["readOnly"]
    assert "subPath" not in at
    [found] = [volume for volume in router_spec(objects)["volumes"] if volume["name"] == at["name"]]
    return found["secret"]


@pytest.mark.parametrize(("auth", "name", "key"), [(KEYED["auth"], "api-keys", "k"), (SECRET, "keys", "keys.yaml")])
def test_routers_read_the_keys_of_a_secret(auth, name, key):
    objects = made(router={"auth": auth})
    assert following(routers(objects)["command"], "--keys") == "/tempo/keys/keys.yaml"
    assert mounted(objects, "/tempo/keys") == {"secretName": name, "items": [{"key": key, "path": "keys.yaml"}]}


def test_without_a_secret_nothing_of_it_is_there():
    objects = made()
    assert not {"--keys", "--tls-cert", "--access-log"} & set(routers(objects)["command"])
    assert [volume["name"] for volume in router_spec(objects)["volumes"]] == ["tempo-config"]


def test_the_configuration_that_all_parts_read_names_no_secret():
    objects = made(router=KEYED | TLS, history={"redis": {"secretRef": {"name": "shared"}}})
    assert not any(name in json.dumps(config(objects)) for name in ("api-keys", "cert", "shared", "secretRef"))


def test_routers_with_a_certificate_speak_tls_and_are_probed_so():
    objects = made(router=TLS)
    router = routers(objects)
    assert following(router["command"], "--tls-cert") == "/tempo/tls/tls.crt"
    assert following(router["command"], "--tls-key") == "/tempo/tls/tls.key"
    assert mounted(objects, "/tempo/tls") == {"secretName": "cert"}
    assert {router[probe]["httpGet"]["scheme"] for probe in ("readinessProbe", "livenessProbe")} == {"HTTPS"}
    assert [port["name"] for port in part(objects, "Service", "demo-router")["spec"]["ports"]] == ["https"]


def test_prometheus_asks_routers_with_a_certificate_over_tls_and_sidecars_as_before():
    objects = made(router=TLS, options=replace(OPTIONS, pod_monitor=True))
    router, *others = part(objects, "PodMonitor", "demo")["spec"]["podMetricsEndpoints"]
    assert (router["port"], router["scheme"]) == ("https", "https")
    assert router["tlsConfig"] == {"insecureSkipVerify": True}
    assert {(other["port"], other.get("scheme")) for other in others} == {("sidecar", None)}


@pytest.mark.parametrize(("router", "scheme"), [({}, "http"), (TLS, "https")])
def test_the_operator_asks_a_router_pod_as_its_port_is_called(router, scheme):
    pod = template(made(router=router), "Deployment", "demo-router")
    status = {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    assert metrics_url(pod | {"status": status}) == f"{scheme}://10.0.0.1:8000/metrics"


@pytest.mark.parametrize(
    ("router", "url"),
    [
        ({}, "http://demo-router.models.svc"),
        ({"service": {"port": 8080}}, "http://demo-router.models.svc:8080"),
        (TLS, "https://demo-router.models.svc:80"),
        (TLS | {"service": {"port": 443}}, "https://demo-router.models.svc"),
    ],
)
def test_a_pool_s_url_is_one_that_clients_can_use(router, url):
    assert Names("demo", "models").router_url(router) == url


@pytest.mark.parametrize("kind", ["VLLM", "Simulated"])
def test_a_shared_history_s_url_goes_from_its_secret_into_the_sidecar_s_environment(kind):
    objects = made(engine={"kind": kind}, history={"redis": {"secretRef": {"name": "shared"}}})
    [found] = containers(objects)["sidecar"]["env"]
    source = {"secretKeyRef": {"name": "shared", "key": "url"}}
    assert found == {"name": "TEMPO_HISTORY", "valueFrom": source}
    assert "env" not in containers(made())["sidecar"]


def test_routers_share_what_tenants_were_served_through_the_same_secret_and_may_reach_its_redis():
    objects = made(history={"redis": {"secretRef": {"name": "shared", "key": "u"}}})
    source = {"secretKeyRef": {"name": "shared", "key": "u"}}
    assert routers(objects)["env"] == [{"name": "TEMPO_TENANTS", "valueFrom": source}]
    *_, redis = part(objects, "NetworkPolicy", "demo-router")["spec"]["egress"]
    assert redis == {"ports": [{"port": 6379, "protocol": "TCP"}]}
    assert "env" not in routers(made())


@pytest.mark.parametrize(("endpoint", "port"), [("http://c.ns:4318/x", 4318), ("https://c", 443), ("http://c", 80)])
def test_routers_that_trace_are_told_where_and_may_go_there(endpoint, port):
    objects = made(router={"tracing": {"endpoint": endpoint, "sampleRatio": 0.1}})
    assert {variable["name"]: variable["value"] for variable in routers(objects)["env"]} == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    }
    *_, collector = part(objects, "NetworkPolicy", "demo-router")["spec"]["egress"]
    assert collector == {"ports": [{"port": port, "protocol": "TCP"}]}
