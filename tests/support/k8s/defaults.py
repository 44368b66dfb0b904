"""What an API server makes of pools, of classes and of what Tempo applies: defaults, and quantities in its own words.

For the kinds and fields that Tempo uses, and no more.
"""

import copy
import random
from decimal import Decimal

from support.crd import FILES, admitted

_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_POD = {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"}
_CONTAINER = {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}


def defaulted(plural: str, document: dict) -> dict:
    """The document as it is stored."""
    if document.get("kind") in FILES:
        return admitted(document)
    fill = {"services": _service, "deployments": _deployment, "statefulsets": _stateful_set}.get(plural)
    if fill is None or not document.get("spec"):
        return document
    document = copy.deepcopy(document)
    fill(document["spec"])
    return document


def _service(spec: dict) -> None:
    address = f"10.0.{random.randint(1, 254)}.{random.randint(1, 254)}"
    _fill(spec, type="ClusterIP", sessionAffinity="None", internalTrafficPolicy="Cluster", ipFamilyPolicy="SingleStack")
    _fill(spec, ipFamilies=["IPv4"], clusterIP=address)
    _fill(spec, clusterIPs=[spec["clusterIP"]])
    for port in spec.get("ports", ()):
        _fill(port, protocol="TCP", targetPort=port["port"])
        if spec["type"] != "ClusterIP":
            _fill(port, nodePort=random.randint(30000, 32767))


def _deployment(spec: dict) -> None:
    _fill(spec, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    _pod(spec.get("template", {}))


def _stateful_set(spec: dict) -> None:
    _fill(spec, revisionHistoryLimit=10, updateStrategy={"type": "RollingUpdate"})
    _fill(spec, persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"})
    _fill(spec["updateStrategy"], rollingUpdate={"partition": 0})
    _pod(spec.get("template", {}))


def _pod(template: dict) -> None:
    spec = template.setdefault("spec", {})
    _fill(spec, **_POD, securityContext={}, terminationGracePeriodSeconds=30)
    if "serviceAccountName" in spec:
        _fill(spec, serviceAccount=spec["serviceAccountName"])
    for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
        _container(container)
    for volume in spec.get("volumes", ()):
        for source in {"configMap", "secret"} & volume.keys():
            _fill(volume[source], defaultMode=0o644)


def _container(container: dict) -> None:
    _fill(container, **_CONTAINER, imagePullPolicy="IfNotPresent", resources={})
    for probe in {"readinessProbe", "livenessProbe", "startupProbe"} & container.keys():
        _fill(container[probe], **_PROBE)
        _fill(container[probe].get("httpGet", {}), scheme="HTTP")
    for port in container.get("ports", ()):
        _fill(port, protocol="TCP")
    for entry in container.get("env", ()):
        if entry.get("value") == "":
            del entry["value"]
    for amounts in container["resources"].values():
        amounts.update({name: _quantity(amount) for name, amount in amounts.items()})


def _quantity(amount: object) -> str:
    """An amount as Go writes it, if it has no suffix; Go has its own way with some of the others too."""
    text = str(amount)
    if not text[-1].isdigit() or "e" in text.lower():
        return text
    number = Decimal(text)
    return str(int(number)) if number == int(number) else f"{int(number * 1000)}m"


def _fill(node: dict, **defaults: object) -> None:
    for name, value in defaults.items():
        node.setdefault(name, value)
