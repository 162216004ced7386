"""This package. A call ends with a choice or a value that was read, so its time is the whole."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from .jobs import Job
from .measure import encoder_batch, prompts


def quantization(form: str) -> Any:
    from curated_transformers.quantization import BitsAndBytesConfig

    kind, _, rest = form.partition("-")
    if kind == "int8":
        return BitsAndBytesConfig.for_8bit(outlier_threshold=float(rest))
    if kind == "bf16":
        return None
    return BitsAndBytesConfig.for_4bit(kind, double_quantization=rest == "double")


class Decoder:
    def __init__(self, job: Job, path: Path, device: str) -> None:
        from curated_transformers.models import GPTNeoXCausalLM, LlamaCausalLM

        model = LlamaCausalLM if job.shape.config["model_type"] == "llama" else GPTNeoXCausalLM
        self.shape = job.shape
        self.model: Any = model.from_path(
            path, device=device, quantization_config=quantization(job.form)
        )
        self.detail = self.model.device

    def run(self, batch: int, length: int, new: int) -> tuple[float, float, list[int]]:
        """Seconds of the prompts and of the pieces behind the first, and the first text."""
        from curated_transformers import _core

        ids = prompts(self.shape, batch, length)
        start = perf_counter()
        session = _core.Session(self.model.core, max_slots=batch, max_batch_tokens=ids.size)
        for row in ids:
            session.add(row, max_pieces=new)
        events = session.run(1)
        first = perf_counter() - start
        events += session.run()
        end = perf_counter() - start
        assert len(events) == batch * new
        return first, end - first, [piece for number, piece, _ in events if number == 0]


class Encoder:
    def __init__(self, job: Job, path: Path, device: str) -> None:
        from curated_transformers.layers import AttentionMask
        from curated_transformers.models import BERTEncoder

        self.model: Any = BERTEncoder.from_path(path, device=device)
        self.ids, mask = encoder_batch(job.shape)
        self.mask = AttentionMask(mask)
        self.detail = self.model.device

    def run(self) -> list[float]:
        hidden = self.model(self.ids, self.mask).last_hidden_layer_state
        return [float(value) for value in np.asarray(hidden[0, 0].numpy())[:8]]
