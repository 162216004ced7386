"""Hugging Face transformers on torch: what most users run today.

Encoders get the padded batch and its mask, with both attention implementations; decoders run
``generate`` and a hand-written loop over the same cache. The warm-up tries both ways, and the
faster one is timed.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call"

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from ..workloads import Workload
from . import Runner, fastest

MODULES = ("torch", "transformers")
DISTRIBUTIONS = ("transformers", "torch", "bitsandbytes")
IMPORTS = {
    "encoder": "import torch; from transformers import BertModel",
    "decoder": "import torch; from transformers import LlamaForCausalLM",
}


def supports(workload: Workload) -> bool:
    return workload.dtype != "gguf"


def prepare(workload: Workload, path: Path) -> None:
    """The checkpoint is in the library's own format."""


def load(workload: Workload, path: Path, threads: int) -> Runner:
    import torch

    torch.set_num_threads(threads)
    kinds = {"encoder": Encoder, "decoder": Decoder, "texts": Texts}
    return kinds[workload.kind](workload, path)


class Encoder(Runner):
    def __init__(self, workload: Workload, path: Path) -> None:
        import torch
        from transformers import BertModel

        dtype = getattr(torch, workload.dtype)
        self.model: Any = BertModel.from_pretrained(
            path, dtype=dtype, attn_implementation="sdpa"
        ).eval()
        ids, mask = workload.inputs()
        self.inputs = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask).long(),
        }
        self.detail = "sdpa"

    def run(self) -> dict[str, float]:
        import torch

        with torch.inference_mode():
            start = perf_counter()
            self.hidden = self.model(**self.inputs).last_hidden_state
            return {"forward": perf_counter() - start}

    def run_with(self, attention: str) -> float:
        self.model.set_attn_implementation(attention)
        return self.run()["forward"]

    def warm_up(self) -> None:
        self.detail = fastest(self.run_with, ("eager", "sdpa"))
        self.model.set_attn_implementation(self.detail)

    def output(self) -> list[float]:
        values: list[float] = self.hidden[0, 0, :8].float().tolist()
        return values


def quantization_config(workload: Workload) -> Any:
    """bitsandbytes, with the settings that ours.py has."""
    if not workload.quantized:
        return None
    from transformers import BitsAndBytesConfig

    if workload.quantized == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype="bfloat16",
        bnb_4bit_use_double_quant=True,
    )


class Decoder(Runner):
    def __init__(self, workload: Workload, path: Path) -> None:
        import torch
        from transformers import LlamaForCausalLM

        dtype = getattr(torch, workload.dtype)
        self.model: Any = LlamaForCausalLM.from_pretrained(
            path, dtype=dtype, quantization_config=quantization_config(workload)
        ).eval()
        self.ids = torch.from_numpy(workload.inputs()[0])
        self.new_tokens = workload.new_tokens
        self.tokens: list[float] = []
        self.detail = "generate"

    def run(self) -> dict[str, float]:
        return self.run_as(self.detail)

    def run_as(self, way: str) -> dict[str, float]:
        return self.loop() if way == "loop" else self.generate()

    def warm_up(self) -> None:
        self.detail = fastest(lambda way: self.run_as(way)["decode"], ("loop", "generate"))

    def loop(self) -> dict[str, float]:
        import torch
        from transformers import DynamicCache

        with torch.inference_mode():
            start = perf_counter()
            cache, step, prefill = DynamicCache(), self.ids, 0.0
            tokens: list[float] = []
            while len(tokens) < self.new_tokens:
                logits = self.model(
                    step, past_key_values=cache, use_cache=True, logits_to_keep=1
                ).logits
                step = logits[:, -1].argmax(-1, keepdim=True)
                tokens.append(float(step))
                prefill = prefill or perf_counter() - start
            self.tokens = tokens
            return {"prefill": prefill, "decode": perf_counter() - start - prefill}

    def generate(self) -> dict[str, float]:
        import torch

        clock = Clock()
        with torch.inference_mode():
            start = perf_counter()
            result = self.model.generate(
                self.ids,
                attention_mask=torch.ones_like(self.ids),
                do_sample=False,
                max_new_tokens=self.new_tokens,
                eos_token_id=None,
                pad_token_id=0,
                streamer=clock,
            )
        self.tokens = [float(token) for token in result[0, self.ids.shape[1] :]]
        # The first time is that of the prompt, which is handed on before anything is computed.
        return {"prefill": clock.times[1] - start, "decode": clock.times[-1] - clock.times[1]}

    def output(self) -> list[float]:
        return self.tokens


class Texts(Runner):
    """Batches that are padded on the left, each until its longest text is done."""

    def __init__(self, workload: Workload, path: Path) -> None:
        import torch
        from transformers import LlamaForCausalLM

        dtype = getattr(torch, workload.dtype)
        self.model: Any = LlamaForCausalLM.from_pretrained(path, dtype=dtype).eval()
        self.new_lengths = workload.new_lengths
        self.tokens: list[float] = []
        self.detail = "generate"
        self.batches = []
        prompts = workload.prompts()
        for rows in workload.batches():
            longest = max(len(prompts[row]) for row in rows)
            ids = torch.zeros((len(rows), longest), dtype=torch.long)
            for i, row in enumerate(rows):
                ids[i, longest - len(prompts[row]) :] = torch.tensor(prompts[row])
            self.batches.append((ids, max(self.new_lengths[row] for row in rows)))

    def run(self) -> dict[str, float]:
        import torch

        start = perf_counter()
        for index, (ids, n) in enumerate(self.batches):
            with torch.inference_mode():
                result = self.model.generate(
                    ids,
                    attention_mask=(ids != 0).long(),  # no prompt has the id 0
                    do_sample=False,
                    max_new_tokens=n,
                    eos_token_id=None,
                    pad_token_id=0,
                )
            if index == 0:
                first = result[0, ids.shape[1] :][: self.new_lengths[0]]
                self.tokens = [float(token) for token in first]
        return {"generate": perf_counter() - start}

    def output(self) -> list[float]:
        return self.tokens


class Clock:
    """A streamer that keeps only the times at which tokens came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: object) -> None:
        self.times.append(perf_counter())

    def end(self) -> None:
        pass
