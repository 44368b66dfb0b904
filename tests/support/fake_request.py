from dataclasses import dataclass, field
from types import SimpleNamespace


@dataclass
class FakeRequest:
    """What `vllm.v1.request.Request` shows the adapter."""

    request_id: str = "r"
    arrival_time: float = 1000.0
    num_prompt_tokens: int = 50
    max_tokens: int = 100
    priority: int = 0
    sampling_params: object = field(default_factory=lambda: SimpleNamespace(extra_args=None))
    num_output_tokens: int = 0
    num_computed_tokens: int = 0
