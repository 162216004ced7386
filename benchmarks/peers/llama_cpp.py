"""llama.cpp through its Python package: decoders, from GGUF.

Random bf16 checkpoints are rewritten as bf16 GGUF, a GGUF workload is taken as it is. The loop
calls the C API's decode directly, so that Python adds an arg max per token and nothing else.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call"

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from ..checkpoints import write_llama_gguf
from ..workloads import BATCH, Workload
from . import Runner

MODULES = ("llama_cpp",)
DISTRIBUTIONS = ("llama-cpp-python",)
IMPORTS = {"decoder": "import llama_cpp"}
GGML_TYPE_BF16 = 30  # which the package does not name
#: The format whose size and products are nearest to a workload's.
FORMATS = {"nf4": "Q4_0", "int8": "Q8_0"}


def supports(workload: Workload) -> bool:
    return workload.kind != "encoder"


def gguf_path(workload: Workload, path: Path) -> Path:
    if path.is_file():
        return path
    return path / f"model{workload.quantized and '-' + workload.quantized}.gguf"


def prepare(workload: Workload, path: Path) -> None:
    target = gguf_path(workload, path)
    if target.exists():
        return
    partial = target.with_suffix(".partial")
    if workload.quantized:
        plain = replace(workload, quantized="")
        prepare(plain, path)
        quantize(gguf_path(plain, path), partial, FORMATS[workload.quantized])
    else:
        write_llama_gguf(partial, path / "model.safetensors", workload.config)
    partial.rename(target)


def quantize(source: Path, target: Path, format: str) -> None:
    """The same layers as ours in ``format``; the head stays what it is."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{format}")
    params.token_embedding_type = params.output_tensor_type = GGML_TYPE_BF16
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params) == 0


def load(workload: Workload, path: Path, threads: int) -> Runner:
    kinds = {"decoder": Decoder, "texts": Texts}
    return kinds[workload.kind](workload, path, threads)


class Decoder(Runner):
    def __init__(self, workload: Workload, path: Path, threads: int) -> None:
        import llama_cpp

        self.prompt = [int(piece) for piece in workload.inputs()[0][0]]
        self.new_tokens = workload.new_tokens
        self.model = llama_cpp.Llama(
            model_path=str(gguf_path(workload, path)),
            n_ctx=len(self.prompt) + self.new_tokens,
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
        )
        self.tokens: list[float] = []
        self.detail = FORMATS.get(workload.quantized, "bf16") if path.is_dir() else "as in the file"

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


class Texts(Runner):
    """Continuous batching as the project's server does it: each step holds the last tokens of all
    running texts and as much of new prompts as fits."""

    STEP_TOKENS = 512

    def __init__(self, workload: Workload, path: Path, threads: int) -> None:
        import llama_cpp

        llama_cpp.llama_backend_init()
        self.prompts, self.new_lengths = workload.prompts(), workload.new_lengths
        self.model = llama_cpp.llama_model_load_from_file(
            str(gguf_path(workload, path)).encode(), llama_cpp.llama_model_default_params()
        )
        params = llama_cpp.llama_context_default_params()
        longest = max(map(sum, zip(workload.lengths, workload.new_lengths, strict=True)))
        params.n_ctx = BATCH * longest
        params.n_batch = params.n_ubatch = self.STEP_TOKENS
        params.n_seq_max = BATCH
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.batch = llama_cpp.llama_batch_init(self.STEP_TOKENS, 0, 1)
        self.n_pieces = workload.config["vocab_size"]
        self.tokens: list[float] = []
        self.detail = "bf16" if workload.dtype == "bfloat16" else "f32"

    def run(self) -> dict[str, float]:
        import llama_cpp

        start = perf_counter()
        texts: list[list[int]] = [[] for _ in self.prompts]
        running: dict[int, int] = {}  # sequence -> row of the prompts
        n_fed = [0] * len(self.prompts)
        n_taken = 0
        memory = llama_cpp.llama_get_memory(self.context)
        llama_cpp.llama_memory_clear(memory, True)
        while n_taken < len(self.prompts) or running:
            for sequence in range(BATCH):
                if sequence not in running and n_taken < len(self.prompts):
                    running[sequence] = n_taken
                    n_taken += 1
            ends = self.fill(running, n_fed, texts)
            assert llama_cpp.llama_decode(self.context, self.batch) == 0
            for sequence, place in ends.items():
                row = running[sequence]
                texts[row].append(self.best(place))
                if len(texts[row]) == self.new_lengths[row]:
                    llama_cpp.llama_memory_seq_rm(memory, sequence, -1, -1)
                    del running[sequence]
        self.tokens = [float(token) for token in texts[0]]
        return {"generate": perf_counter() - start}

    def fill(
        self, running: dict[int, int], n_fed: list[int], texts: list[list[int]]
    ) -> dict[int, int]:
        """The batch of a step; gives the place at which each sequence's next token is chosen."""
        ends = {}
        self.batch.n_tokens = 0
        # Those that go on come first.
        for sequence, row in sorted(running.items(), key=lambda item: not texts[item[1]]):
            ids = self.prompts[row] + texts[row][-1:] if texts[row] else self.prompts[row]
            first = len(ids) - 1 if texts[row] else n_fed[row]
            for piece in ids[first : first + self.STEP_TOKENS - self.batch.n_tokens]:
                place = self.batch.n_tokens
                self.batch.token[place] = piece
                self.batch.pos[place] = n_fed[row]
                self.batch.n_seq_id[place] = 1
                self.batch.seq_id[place][0] = sequence
                n_fed[row] += 1
                is_end = n_fed[row] >= len(self.prompts[row])
                self.batch.logits[place] = is_end
                self.batch.n_tokens += 1
                if is_end:
                    ends[sequence] = place
        return ends

    def best(self, place: int) -> int:
        import llama_cpp

        logits = llama_cpp.llama_get_logits_ith(self.context, place)
        return int(np.argmax(np.ctypeslib.as_array(logits, shape=(self.n_pieces,))))

    def output(self) -> list[float]:
        return self.tokens
