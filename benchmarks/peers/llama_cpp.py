"""llama.cpp through its Python package: decoders, from GGUF.

Random bf16 checkpoints are rewritten as bf16 GGUF, a GGUF workload is taken as it is. The loop
calls the C API's decode directly, so that Python adds an arg max per token and nothing else.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call"

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np

from ..checkpoints import write_llama_gguf
from ..workloads import Workload
from . import Runner

MODULES = ("llama_cpp",)
DISTRIBUTIONS = ("llama-cpp-python",)
IMPORTS = {"decoder": "import llama_cpp"}


def supports(workload: Workload) -> bool:
    return workload.kind == "decoder"


def gguf_path(path: Path) -> Path:
    return path / "model.gguf" if path.is_dir() else path


def prepare(workload: Workload, path: Path) -> None:
    if not gguf_path(path).exists():
        partial = path / "model.gguf.partial"
        write_llama_gguf(partial, path / "model.safetensors", workload.config)
        partial.rename(gguf_path(path))


def load(workload: Workload, path: Path, threads: int) -> Decoder:
    return Decoder(workload, path, threads)


class Decoder(Runner):
    def __init__(self, workload: Workload, path: Path, threads: int) -> None:
        import llama_cpp

        self.prompt = [int(piece) for piece in workload.inputs()[0][0]]
        self.new_tokens = workload.new_tokens
        self.model = llama_cpp.Llama(
            model_path=str(gguf_path(path)),
            n_ctx=len(self.prompt) + self.new_tokens,
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
        )
        self.tokens: list[float] = []
        self.detail = "bf16" if path.is_dir() else "as in the file"

    def run(self) -> dict[str, float]:
        self.model.reset()
        start = perf_counter()
        step, prefill = self.prompt, 0.0
        tokens: list[float] = []
        while len(tokens) < self.new_tokens:
            self.model.eval(step)
            step = [self.best()]
            tokens.append(float(step[0]))
            prefill = prefill or perf_counter() - start
        self.tokens = tokens
        return {"prefill": prefill, "decode": perf_counter() - start - prefill}

    def best(self) -> int:
        import llama_cpp

        logits = llama_cpp.llama_get_logits_ith(self.model.ctx, -1)
        return int(np.argmax(np.ctypeslib.as_array(logits, shape=(self.model.n_vocab(),))))

    def output(self) -> list[float]:
        return self.tokens
