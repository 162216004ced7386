"""transformers, by itself, with a static cache (which `generate` compiles for on a GPU) and with
bitsandbytes."""

# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call"

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from .jobs import BNB, STATIC, Job
from .measure import encoder_batch, prompts


def quantization(form: str) -> dict[str, Any]:
    import torch
    from transformers import BitsAndBytesConfig

    kind, _, rest = form.partition("-")
    if kind == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=float(rest))
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=kind,
            bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_use_double_quant=rest == "double",
        )
    return {"quantization_config": config}


def load(model: Any, job: Job, path: Path, device: str) -> Any:
    import torch
    import transformers

    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    dtype = "dtype" if version >= (4, 56) else "torch_dtype"
    options: dict[str, Any] = {dtype: torch.bfloat16}
    if job.peer == BNB:
        options |= {"device_map": {"": device}, **quantization(job.form)}
        return model.from_pretrained(path, **options).eval()
    return model.from_pretrained(path, **options).eval().to(device)


def wait(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


class Decoder:
    def __init__(self, job: Job, path: Path, device: str) -> None:
        from transformers import AutoModelForCausalLM

        self.shape, self.device = job.shape, device
        self.model = load(AutoModelForCausalLM, job, path, device)
        self.options: dict[str, Any] = {}
        self.detail = "generate"
        if job.peer == STATIC:
            self.options["cache_implementation"] = "static"
            self.detail = "generate, static cache, compiled" if device != "cpu" else "static cache"

    def run(self, batch: int, length: int, new: int) -> tuple[float, float, list[int]]:
        """As ours. The time of the prompts is that of a call which asks for one piece."""
        import torch

        ids = torch.from_numpy(prompts(self.shape, batch, length)).to(self.device)
        first, _ = self.generate(ids, 1)
        if new == 1:
            return first, 0.0, []
        whole, pieces = self.generate(ids, new)
        return first, max(whole - first, 1e-9), pieces[0, length:].tolist()

    def generate(self, ids: Any, new: int) -> tuple[float, Any]:
        import torch

        wait(self.device)
        start = perf_counter()
        with torch.inference_mode():
            pieces = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=new,
                min_new_tokens=new,
                pad_token_id=0,
                **self.options,
            )
        wait(self.device)
        return perf_counter() - start, pieces


class Encoder:
    def __init__(self, job: Job, path: Path, device: str) -> None:
        import torch
        from transformers import AutoModel

        self.device = device
        self.model = load(AutoModel, job, path, device)
        self.detail = "padded, sdpa"
        if job.peer == STATIC:
            self.model = torch.compile(self.model)
            self.detail = "padded, sdpa, compiled"
        ids, mask = encoder_batch(job.shape)
        self.inputs = {
            "input_ids": torch.from_numpy(ids).to(device),
            "attention_mask": torch.from_numpy(mask).long().to(device),
        }

    def run(self) -> list[float]:
        import torch

        with torch.inference_mode():
            hidden = self.model(**self.inputs).last_hidden_state
            values: list[float] = hidden[0, 0, :8].float().tolist()
        return values
