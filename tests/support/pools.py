"""A pool's manifests for tests."""

from pathlib import Path

POOL = """
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {name: chat}
spec: {pattern: Latency, objectives: {ttft: 2s, tbt: 100ms}, gain: {weight: 16}, default: true}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {name: tool}
spec: {pattern: Deadline, objectives: {ttlt: 20s}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {name: agent}
spec: {pattern: Collective, objectives: {perStage: 20s}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {name: batch}
spec: {pattern: BestEffort}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: TempoPool
metadata: {name: test}
spec: {model: tiny, scheduler: {policy: tempo}}
"""


def write_pool(folder: Path, policy: str = "tempo") -> Path:
    """The manifests as a file in `folder`."""
    path = folder / "pool.yaml"
    path.write_text(POOL.replace("policy: tempo", f"policy: {policy}"), encoding="utf-8")
    return path
