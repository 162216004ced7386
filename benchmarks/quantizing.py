"""How long a checkpoint of the shape of dolly-v2-3b takes to be loaded and quantized, and how much
memory, beside transformers with bitsandbytes.

    python -m benchmarks.quantizing

Weights are random, in bf16: 5.6 GB in the directory that the workloads use. Each load is a fresh
process; libraries take turns, and the file lies in the page cache.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from .checkpoints import Shape, write_safetensors
from .processes import ROOT, WorkerError, default_pythons, environment
from .workloads import cache_dir

DOLLY_3B: Mapping[str, Any] = {
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "hidden_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 10240,
    "hidden_act": "gelu",
    "vocab_size": 50280,
    "max_position_embeddings": 2048,
    "rotary_pct": 0.25,
    "rotary_emb_base": 10000,
    "use_parallel_residual": True,
    "layer_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "torch_dtype": "bfloat16",
}
FORMATS = ("nf4", "int8")
OURS, PEER = "ours", "transformers + bitsandbytes"
POLL_SECONDS = 0.01

#: Programs that take the path and the number of threads, and print the seconds of the load; and
#: how each configures a format.
LOADS = {
    OURS: """
from curated_transformers import _core
from curated_transformers.models import GPTNeoXCausalLM
from curated_transformers.quantization import BitsAndBytesConfig
_core.set_num_threads(threads)
config = BitsAndBytesConfig.{config}
start = perf_counter()
model = GPTNeoXCausalLM.from_path(path, quantization_config=config)
""",
    PEER: """
import bitsandbytes, torch
from transformers import BitsAndBytesConfig, GPTNeoXForCausalLM
torch.set_num_threads(threads)
config = BitsAndBytesConfig({config})
start = perf_counter()
model = GPTNeoXForCausalLM.from_pretrained(path, dtype=torch.bfloat16, quantization_config=config)
""",
}
CONFIGS = {
    (OURS, "nf4"): "for_4bit('nf4')",
    (OURS, "int8"): "for_8bit()",
    (PEER, "nf4"): "load_in_4bit=True, bnb_4bit_quant_type='nf4', "
    "bnb_4bit_compute_dtype='bfloat16', bnb_4bit_use_double_quant=True",
    (PEER, "int8"): "load_in_8bit=True",
}
BEGIN = "import sys\nfrom time import perf_counter\npath, threads = sys.argv[1], int(sys.argv[2])\n"
END = "print(perf_counter() - start)\n"


def shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    width, inner, pieces = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    named: dict[str, Shape] = {
        "gpt_neox.embed_in.weight": (pieces, width),
        "gpt_neox.final_layer_norm.weight": (width,),
        "gpt_neox.final_layer_norm.bias": (width,),
        "embed_out.weight": (pieces, width),
    }
    for index in range(config["num_hidden_layers"]):
        layer = f"gpt_neox.layers.{index}"
        for name, (n_out, n_in) in {
            "attention.query_key_value": (3 * width, width),
            "attention.dense": (width, width),
            "mlp.dense_h_to_4h": (inner, width),
            "mlp.dense_4h_to_h": (width, inner),
        }.items():
            named |= {f"{layer}.{name}.weight": (n_out, n_in), f"{layer}.{name}.bias": (n_out,)}
        for name in ("input_layernorm", "post_attention_layernorm"):
            named |= {f"{layer}.{name}.weight": (width,), f"{layer}.{name}.bias": (width,)}
    return named


def ensure_checkpoint() -> Path:
    path = cache_dir() / "gpt_neox-2560-bfloat16"
    if not (path / "config.json").exists():
        path.mkdir(parents=True, exist_ok=True)
        write_safetensors(path / "model.safetensors", shapes(DOLLY_3B), "bfloat16")
        (path / "config.json").write_text(json.dumps(DOLLY_3B))
    return path


def load(python: str, program: str, path: Path, threads: int) -> tuple[float, float]:
    """Seconds, and the most GB of its own memory (the mapped file not counted) that it held."""
    process = subprocess.Popen(
        [python, "-c", BEGIN + program + END, str(path), str(threads)],
        cwd=ROOT,
        env=environment(threads),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, own_gb(process.pid))
        time.sleep(POLL_SECONDS)
    output, errors = process.communicate()
    if process.returncode:
        raise WorkerError(errors[-2000:])
    return float(output.split()[-1]), peak


def own_gb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) * 1024 / 1e9
    except (OSError, IndexError):  # it has just ended
        return 0.0


def has(python: str, modules: str) -> bool:
    command = [python, "-c", f"import {modules}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantizing", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", nargs="+", default=default_pythons(), metavar="INTERPRETER")
    options = parser.parse_args()
    modules = {OURS: "curated_transformers._core", PEER: "bitsandbytes, transformers"}
    pythons = {
        name: python
        for name, needed in modules.items()
        for python in reversed(options.python)
        if has(python, needed)
    }
    path = ensure_checkpoint()
    for format in FORMATS:
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in pythons}
        for _ in range(options.rounds):
            for name, python in pythons.items():
                program = LOADS[name].format(config=CONFIGS[name, format])
                runs[name].append(load(python, program, path, options.threads))
        for name, results in runs.items():
            seconds, peak = (median(values) for values in zip(*results, strict=True))
            print(f"{format}, {name}: {seconds:.1f} s, {peak:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
