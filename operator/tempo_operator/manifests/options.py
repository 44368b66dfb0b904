"""What the operator's own settings say about the pools that it makes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ENGINE_IMAGE: Final = "vllm/vllm-openai:v0.32.0"
"""Of pools that name none."""


@dataclass(frozen=True, slots=True)
class Options:
    """The same for every pool."""

    image: str
    """Tempo's own: router, sidecar, plug-in, simulated engine."""
    engine_image: str = ENGINE_IMAGE
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets in the pool's namespace."""
    drain_s: int = 300
    """How long requests in flight may go on when their pod is asked to end."""
    network_policy: bool = True
    metrics_from: tuple[Mapping[str, Any], ...] = ()
    """NetworkPolicyPeers that may read metrics, beside this pool's routers: Prometheus and the operator."""
    pod_monitor: bool = False
    """Whether the cluster has `monitoring.coreos.com/v1`."""
