"""This package: encoders as documented, generation through the session that its generators use."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ..workloads import Workload
from . import Runner, first_values

MODULES = ("curated_transformers", "curated_transformers._core")
DISTRIBUTIONS = ("curated-transformers",)
IMPORTS = {
    "encoder": "from curated_transformers.models.bert import BERTEncoder",
    "decoder": "from curated_transformers.models.llama import LlamaCausalLM",
}


def supports(workload: Workload) -> bool:
    return True


def prepare(workload: Workload, path: Path) -> None:
    """The checkpoint is in the package's own format."""


def load(workload: Workload, path: Path, threads: int) -> Runner:
    from curated_transformers import _core

    _core.set_num_threads(threads)
    kinds = {"encoder": Encoder, "decoder": Decoder, "texts": Texts}
    return kinds[workload.kind](workload, path)


def quantization_config(workload: Workload) -> Any:
    """As bitsandbytes' users configure it most: NF4 with bf16 and nested scales, or LLM.int8."""
    from curated_transformers.quantization.bnb.config import BitsAndBytesConfig, Dtype4Bit

    if workload.quantized == "nf4":
        return BitsAndBytesConfig.for_4bit(quantization_dtype=Dtype4Bit.NF4)
    return BitsAndBytesConfig.for_8bit() if workload.quantized == "int8" else None


class Encoder(Runner):
    def __init__(self, workload: Workload, path: Path) -> None:
        from curated_transformers import _core
        from curated_transformers.layers import AttentionMask
        from curated_transformers.models.bert import BERTEncoder

        self.model: Any = BERTEncoder.from_path(path)
        self.ids, mask = workload.inputs()
        self.mask = AttentionMask(mask)
        self.detail = _core.isa()

    def run(self) -> dict[str, float]:
        start = perf_counter()
        # Reading the tensor makes it padded, as the peers' results are.
        self.hidden = self.model(self.ids, self.mask).last_hidden_layer_state
        return {"forward": perf_counter() - start}

    def output(self) -> list[float]:
        return first_values(np.asarray(self.hidden)[0, 0])


class Decoder(Runner):
    def __init__(self, workload: Workload, path: Path) -> None:
        from curated_transformers import _core
        from curated_transformers.models import LlamaCausalLM

        self.model: Any = LlamaCausalLM.from_path(
            path,
            dtype=workload.computed or None,
            quantization_config=quantization_config(workload),
        )
        self.prompt = workload.inputs()[0][0]
        self.new_tokens = workload.new_tokens
        self.tokens: list[float] = []
        self.detail = _core.isa()

    def run(self) -> dict[str, float]:
        from curated_transformers import _core

        start = perf_counter()
        session = _core.Session(self.model.core, max_slots=1)
        session.add(self.prompt, max_pieces=self.new_tokens)
        events = session.run(1)
        prefill = perf_counter() - start
        events += session.run()
        decode = perf_counter() - start - prefill
        self.tokens = [float(piece) for _, piece, _ in events if piece >= 0]
        return {"prefill": prefill, "decode": decode}

    def output(self) -> list[float]:
        return self.tokens


class Texts(Runner):
    """All prompts go into one session, which batches them continuously."""

    def __init__(self, workload: Workload, path: Path) -> None:
        from curated_transformers import _core
        from curated_transformers.models import LlamaCausalLM

        self.model: Any = LlamaCausalLM.from_path(path)
        self.workload = workload
        self.prompts = workload.prompts()
        self.tokens: list[float] = []
        self.detail = _core.isa()

    def run(self) -> dict[str, float]:
        from curated_transformers import _core

        start = perf_counter()
        session = _core.Session(self.model.core)
        for prompt, n in zip(self.prompts, self.workload.new_lengths, strict=True):
            session.add(prompt, max_pieces=n)
        events = session.run()
        seconds = perf_counter() - start
        assert len(events) == sum(self.workload.new_lengths)
        self.tokens = [float(event[1]) for event in events if event[0] == 0]
        return {"generate": seconds}

    def output(self) -> list[float]:
        return self.tokens
