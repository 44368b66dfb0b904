"""Pools and classes for tests."""


def chat_class(name: str = "chat", **spec) -> dict:
    latency = {"pattern": "Latency", "objectives": {"ttft": "2s", "tbt": "100ms"}, "default": True}
    return {
        "apiVersion": "serving.tempo.dev/v1alpha1",
        "kind": "SLOClass",
        "metadata": {"name": name},
        "spec": {**latency, **spec},
    }


def a_pool(namespace: str, name: str = "pool", **spec) -> dict:
    return {
        "apiVersion": "serving.tempo.dev/v1alpha1",
        "kind": "TempoPool",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": "Qwen/Qwen2.5-7B-Instruct", "replicas": 1, **spec},
    }
