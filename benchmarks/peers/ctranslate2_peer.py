"""CTranslate2 on its own conversion of the same checkpoint.

Its CPU back end computes in f32 (or int8, which gives other results), so that bf16 checkpoints run
as f32; it leaves padding out itself. The decoder streams tokens through a callback, whose times
separate prompt and generation.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call"

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from ..workloads import BATCH, Workload
from . import Runner, first_values

MODULES = ("ctranslate2",)
DISTRIBUTIONS = ("ctranslate2",)
IMPORTS = {"encoder": "import ctranslate2", "decoder": "import ctranslate2"}


def supports(workload: Workload) -> bool:
    return workload.dtype != "gguf" and not workload.quantized


def converted_path(path: Path) -> Path:
    return path / "ctranslate2"


def prepare(workload: Workload, path: Path) -> None:
    if not converted_path(path).exists():
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(str(path)).convert(str(converted_path(path)))


def load(workload: Workload, path: Path, threads: int) -> Runner:
    kinds = {"encoder": Encoder, "decoder": Decoder, "texts": Texts}
    return kinds[workload.kind](workload, path, threads)


class Encoder(Runner):
    def __init__(self, workload: Workload, path: Path, threads: int) -> None:
        import ctranslate2

        self.model = ctranslate2.Encoder(
            str(converted_path(path)),
            compute_type="float32",
            intra_threads=threads,
            inter_threads=1,
        )
        ids, mask = workload.inputs()
        self.ids = ctranslate2.StorageView.from_array(ids.astype("int32"))
        self.lengths = ctranslate2.StorageView.from_array(mask.sum(axis=1).astype("int32"))
        self.detail = "float32"

    def run(self) -> dict[str, float]:
        start = perf_counter()
        self.hidden: Any = self.model.forward_batch(self.ids, self.lengths).last_hidden_state
        return {"forward": perf_counter() - start}

    def output(self) -> list[float]:
        import numpy as np

        return first_values(np.array(self.hidden)[0, 0])


class Decoder(Runner):
    def __init__(self, workload: Workload, path: Path, threads: int) -> None:
        import ctranslate2

        self.model = ctranslate2.Generator(
            str(converted_path(path)),
            compute_type="float32",
            intra_threads=threads,
            inter_threads=1,
        )
        self.prompt = [f"w{piece}" for piece in workload.inputs()[0][0]]
        self.new_tokens = workload.new_tokens
        self.tokens: list[float] = []
        self.detail = "float32"

    def run(self) -> dict[str, float]:
        times: list[float] = []
        tokens: list[float] = []

        def keep(step: Any) -> bool:
            times.append(perf_counter())
            tokens.append(float(step.token_id))
            return False

        start = perf_counter()
        self.model.generate_batch(
            [self.prompt],
            beam_size=1,
            max_length=self.new_tokens,
            min_length=self.new_tokens,
            include_prompt_in_result=False,
            callback=keep,
        )
        self.tokens = tokens
        return {"prefill": times[0] - start, "decode": times[-1] - times[0]}

    def output(self) -> list[float]:
        return self.tokens


class Texts(Runner):
    """Batches of prompts sorted by their length, as the library itself splits a long list; texts
    that are done leave their batch."""

    def __init__(self, workload: Workload, path: Path, threads: int) -> None:
        import ctranslate2

        self.model = ctranslate2.Generator(
            str(converted_path(path)),
            compute_type="float32",
            intra_threads=threads,
            inter_threads=1,
        )
        self.new_lengths = workload.new_lengths
        self.tokens: list[float] = []
        self.detail = "float32"
        prompts = [[f"w{piece}" for piece in prompt] for prompt in workload.prompts()]
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        self.batches = [
            (order[first : first + BATCH], [prompts[row] for row in order[first : first + BATCH]])
            for first in range(0, len(order), BATCH)
        ]

    def run(self) -> dict[str, float]:
        start = perf_counter()
        for rows, prompts in self.batches:
            limits = [self.new_lengths[row] for row in rows]

            def is_done(step: Any, limits: list[int] = limits) -> bool:
                return int(step.step) + 1 >= limits[step.batch_id]

            results = self.model.generate_batch(
                prompts,
                beam_size=1,
                max_length=max(limits),
                min_length=max(limits),
                include_prompt_in_result=False,
                callback=is_done,
            )
            if 0 in rows:
                self.tokens = [float(token) for token in results[rows.index(0)].sequences_ids[0]]
        return {"generate": perf_counter() - start}

    def output(self) -> list[float]:
        return self.tokens
