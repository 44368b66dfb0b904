"""Manifests with what becomes of them: for the parser, for the schemas' rules, and for a real API server.

One fault each, for a server tries no rule on what does not fit the schema.
"""

from dataclasses import dataclass
from typing import Any

API = "serving.tempo.dev/v1alpha1"
LATENCY = {"ttft": "2s", "tbt": "100ms"}
SECRET = {"secretRef": {"name": "keys"}}


@dataclass(frozen=True)
class Case:
    """A document, and a part of what the API server says to it; None: it takes it."""

    about: str
    document: dict[str, Any]
    refused: str | None = None


@dataclass(frozen=True)
class Change:
    """A document that is there, what it is changed to, and a part of what the API server says; None: it takes it."""

    about: str
    old: dict[str, Any]
    new: dict[str, Any]
    refused: str | None = None


def slo(name: str = "chat", **spec: Any) -> dict[str, Any]:
    """An SLOClass, good but for what is given."""
    spec = {"pattern": "Latency", "objectives": LATENCY, **spec}
    return {"apiVersion": API, "kind": "SLOClass", "metadata": {"name": name}, "spec": spec}


def pool(name: str = "demo", **spec: Any) -> dict[str, Any]:
    """A TempoPool, good but for what is given."""
    return {"apiVersion": API, "kind": "TempoPool", "metadata": {"name": name}, "spec": {"model": "m", **spec}}


def _engine(**engine: Any) -> dict[str, Any]:
    return pool(engine=engine)


DURATION = "must be between 1ms and 168h"
NO_MATCH = "should match"

TAKEN = (
    Case("the least", slo()),
    Case("nulls are absent", slo(gain=None, default=None, overload={"maxQueueTime": None})),
    Case("deadline", slo(pattern="Deadline", objectives={"ttlt": "20s"})),
    Case("end to end", slo(pattern="Collective", objectives={"endToEnd": "1m30s"})),
    Case("per stage", slo(pattern="Collective", objectives={"perStage": "0.5h"})),
    Case("best effort", slo(pattern="BestEffort", objectives={})),
    Case("best effort without a word", slo(pattern="BestEffort", objectives=None)),
    Case("hard decay", slo(gain={"weight": 0.5, "decay": "hard"})),
    Case("fractional decay", slo(gain={"decay": "0.5"})),
    Case("whole decay", slo(gain={"decay": 16})),
    Case("the shortest and the longest duration", slo(objectives={"ttft": "168h", "tbt": "1000us"})),
    Case("overload", slo(overload={"maxQueueTime": "5s", "action": "Shed"}, default=True)),
    Case("the longest class name", slo("c" * 63)),
    Case("the least of a pool", pool()),
    Case("the longest pool name", pool("p" * 40)),
    Case("scaled to zero", pool(replicas=0)),
    Case("autoscaling", pool(autoscaling={"minReplicas": 2, "maxReplicas": 2})),
    Case("simulated", _engine(kind="Simulated", args=["--profile=llama-3.1-8b-a100"])),
    Case("secrets", pool(router={"auth": SECRET}, history={"redis": {"secretRef": {"name": "r", "key": "url"}}})),
    Case("a certificate", pool(router={"auth": SECRET, "tls": SECRET, "accessLog": True})),
    Case(
        "everything that pods have",
        _engine(
            image="registry.example/vllm:1",
            env=[{"name": "A", "value": ""}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            resources={"limits": {"nvidia.com/gpu": 2, "memory": "64Gi"}, "requests": {"cpu": "0.5"}},
            tensorParallelSize=2,
            nodeSelector={"gpu": "h100"},
            tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 5}],
            volumes=[{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
            volumeMounts=[{"name": "models", "mountPath": "/models", "readOnly": True}],
        ),
    ),
    Case("classes with weights", pool(classes=[{"name": "chat", "weight": 4}, {"name": "batch"}])),
    Case("spans", pool(router={"tracing": {"endpoint": "http://c.ns:4318", "sampleRatio": 0}})),
    Case("gain alone", pool(scheduler={"promiseValue": 0})),
    Case("a scheduler to compare with", pool(scheduler={"policy": "fcfs", "lengthQuantile": 0.5, "patience": "1m"})),
    Case("tenants that count", pool(scheduler={"fairness": 1})),
    Case(
        "a router",
        pool(
            router={
                "replicas": 3,
                "service": {"type": "LoadBalancer", "port": 443, "annotations": {"a/b": "c"}},
                "maxBodyBytes": 67108864,
                "maxConcurrentRequests": 1,
                "serviceTiers": {"flex": "batch"},
                "resources": {"limits": {"cpu": 2}},
            }
        ),
    ),
)

REFUSED = (
    Case("latency without objectives", slo(objectives={}), "pattern Latency takes ttft and tbt"),
    Case("latency with a deadline", slo(objectives={**LATENCY, "ttlt": "3s"}), "pattern Latency takes ttft and tbt"),
    Case("deadline without one", slo(pattern="Deadline", objectives={}), "pattern Deadline takes ttlt"),
    Case("deadline with ttft", slo(pattern="Deadline", objectives=LATENCY), "pattern Deadline takes ttlt"),
    Case(
        "both deadlines of a program",
        slo(pattern="Collective", objectives={"endToEnd": "1m", "perStage": "9s"}),
        "pattern Collective takes endToEnd or perStage",
    ),
    Case("a promise without effort", slo(pattern="BestEffort"), "pattern BestEffort takes no objectives"),
    Case("no pattern", slo(pattern=None), "spec.pattern"),
    Case("an unknown pattern", slo(pattern="Quick"), "spec.pattern"),
    Case("no duration", slo(objectives={"ttft": "2s", "tbt": "fast"}), NO_MATCH),
    Case("a duration without a unit", slo(overload={"maxQueueTime": "5"}), NO_MATCH),
    Case("a negative duration", slo(overload={"maxQueueTime": "-5s"}), NO_MATCH),
    Case("a duration of zero", slo(objectives={"ttft": "0s", "tbt": "1s"}), DURATION),
    Case("too short a duration", slo(objectives={"ttft": "1s", "tbt": "999us"}), DURATION),
    Case("too long a duration", slo(objectives={"ttft": "169h", "tbt": "1s"}), DURATION),
    Case("a weight of zero", slo(gain={"weight": 0}), "spec.gain.weight"),
    Case("too large a weight", slo(gain={"weight": 1001}), "spec.gain.weight"),
    Case("a negative token", slo(gain={"outputToken": -1}), "spec.gain.outputToken"),
    Case("a decay of zero", slo(gain={"decay": 0}), "must be hard, or more than 0 and at most 16"),
    Case("a written decay of zero", slo(gain={"decay": "0.0"}), "must be hard, or more than 0 and at most 16"),
    Case("too large a decay", slo(gain={"decay": "16.5"}), "must be hard, or more than 0 and at most 16"),
    Case("a soft decay", slo(gain={"decay": "soft"}), NO_MATCH),
    Case("an unknown action", slo(overload={"action": "Panic"}), "spec.overload.action"),
    Case("an unknown field", slo(gain={"wieght": 1}), "wieght"),
    Case("a class name with dots", slo("a.b"), "at most 63 lower-case letters, digits and dashes"),
    Case("no model", pool(model=None), "spec.model"),
    Case("an empty model", pool(model=""), "spec.model"),
    Case("a long pool name", pool("p" * 41), "at most 40 lower-case letters, digits and dashes"),
    Case("a pool name that begins with a digit", pool("1p"), "at most 40 lower-case letters, digits and dashes"),
    Case("replicas and autoscaling", pool(replicas=2, autoscaling={"maxReplicas": 4}), "give replicas or autoscaling"),
    Case("negative replicas", pool(replicas=-1), "spec.replicas"),
    Case("autoscaling without a limit", pool(autoscaling={"minReplicas": 1}), "maxReplicas"),
    Case("upside down", pool(autoscaling={"minReplicas": 5, "maxReplicas": 4}), "is larger than maxReplicas"),
    Case("an unknown engine", _engine(kind="Other"), "spec.engine.kind"),
    Case("an address of its own", _engine(args=["--host=0.0.0.0"]), "is set by Tempo; leave it out"),
    Case("a port of its own", _engine(args=["--port", "1"]), "is set by Tempo; leave it out"),
    Case("a scheduler of its own", _engine(args=["--scheduler_cls=x.Y"]), "is set by Tempo; leave it out"),
    Case("a variable twice", _engine(env=[{"name": "A"}, {"name": "A"}]), "Duplicate value"),
    Case("a variable without a name", _engine(env=[{"value": "1"}]), "spec.engine.env[0]"),
    Case("a number in the environment", _engine(env=[{"name": "A", "value": 1}]), "spec.engine.env[0].value"),
    Case(
        "two values", _engine(env=[{"name": "A", "value": "1", "valueFrom": {}}]), "give value or valueFrom, not both"
    ),
    Case("no quantity", _engine(resources={"limits": {"memory": "lots"}}), NO_MATCH),
    Case("a bare fraction", _engine(resources={"requests": {"cpu": 0.5}}), "spec.engine.resources.requests"),
    Case("no GPUs", _engine(tensorParallelSize=0), "spec.engine.tensorParallelSize"),
    Case(
        "a volume of Tempo's", _engine(volumes=[{"name": "tempo-lib"}]), "names that begin with tempo- are Tempo's own"
    ),
    Case("a volume twice", _engine(volumes=[{"name": "a"}, {"name": "a"}]), "Duplicate value"),
    Case("a volume without a name", _engine(volumes=[{"emptyDir": {}}]), "spec.engine.volumes[0]"),
    Case(
        "two mounts at one place",
        _engine(volumeMounts=[{"name": "a", "mountPath": "/m"}, {"name": "b", "mountPath": "/m"}]),
        "Duplicate value",
    ),
    Case("an unknown effect", _engine(tolerations=[{"effect": "Never"}]), "spec.engine.tolerations[0].effect"),
    Case("an unknown policy", pool(scheduler={"policy": "best"}), "spec.scheduler.policy"),
    Case("a quantile of one", pool(scheduler={"lengthQuantile": 1}), "spec.scheduler.lengthQuantile"),
    Case("no steps", pool(scheduler={"frameSteps": 0}), "spec.scheduler.frameSteps"),
    Case("a promise that costs", pool(scheduler={"promiseValue": -1}), "spec.scheduler.promiseValue"),
    Case("nowhere to trace", pool(router={"tracing": {"endpoint": "c:4318"}}), "spec.router.tracing.endpoint"),
    Case("no such port", pool(router={"tracing": {"endpoint": "http://c:70000"}}), "spec.router.tracing.endpoint"),
    Case("no patience", pool(scheduler={"patience": "0s"}), DURATION),
    Case("more than fair", pool(scheduler={"fairness": 1.5}), "spec.scheduler.fairness"),
    Case("no classes", pool(classes=[]), "spec.classes"),
    Case("a class twice", pool(classes=[{"name": "a"}, {"name": "a"}]), "Duplicate value"),
    Case("a class without weight", pool(classes=[{"name": "a", "weight": 0}]), "spec.classes[0].weight"),
    Case("no routers", pool(router={"replicas": 0}), "spec.router.replicas"),
    Case("too large a body", pool(router={"maxBodyBytes": 67108865}), "spec.router.maxBodyBytes"),
    Case("a service port of zero", pool(router={"service": {"port": 0}}), "spec.router.service.port"),
    Case("a tier for no class name", pool(router={"serviceTiers": {"flex": "Batch"}}), NO_MATCH),
    Case(
        "a key of a certificate's secret",
        pool(router={"tls": {"secretRef": {"name": "a", "key": "b"}}}),
        "spec.router.tls.secretRef",
    ),
    Case("a secret without a name", pool(router={"auth": {"secretRef": {}}}), "spec.router.auth.secretRef"),
)

CHANGES = (
    Change("another model", pool(), pool(model="n"), "is immutable; make another pool for another model"),
    Change("another name for it", pool(), pool(servedModelName="n"), "is immutable, because clients ask for the model"),
    Change("the same name in so many words", pool(), pool(servedModelName="m")),
    Change("another kind of engine", pool(), _engine(kind="Simulated"), "is immutable; make another pool"),
    Change("the engine's kind in so many words", pool(), _engine(kind="VLLM")),
    Change("replicas", pool(replicas=1), pool(replicas=3)),
    Change("from replicas to autoscaling", pool(replicas=1), pool(autoscaling={"maxReplicas": 3})),
    Change("another pattern", slo(), slo(pattern="BestEffort", objectives={})),
)
