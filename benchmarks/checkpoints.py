"""Checkpoint files with NumPy alone: random safetensors, and the GGUF form of a Llama in bf16.

Tensors are written one after the other, so that a model larger than the memory to spare can be
made.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]

SAFETENSORS_NAMES = {"float32": "F32", "bfloat16": "BF16"}
# Numbers of the GGUF format: value types of the metadata, and tensor types.
GGUF_U32, GGUF_F32, GGUF_STRING = 4, 6, 8
GGUF_TENSOR_F32, GGUF_TENSOR_BF16 = 0, 30
GGUF_ALIGNMENT = 32


def write_safetensors(path: Path, shapes: Mapping[str, Shape], dtype: str) -> None:
    """Weights of standard deviation 0.02, as models are initialized; norms are 1 and biases 0."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(safetensors_header(shapes, dtype))
        for name, shape in shapes.items():
            file.write(encode(random_weight(rng, name, shape), dtype).tobytes())


def safetensors_header(shapes: Mapping[str, Shape], dtype: str) -> bytes:
    """What comes before the tensors, which follow each other in their order."""
    width = 2 if dtype == "bfloat16" else 4
    header: dict[str, Any] = {}
    offset = 0
    for name, shape in shapes.items():
        end = offset + int(np.prod(shape)) * width
        header[name] = {
            "dtype": SAFETENSORS_NAMES[dtype],
            "shape": shape,
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def random_weight(rng: np.random.Generator, name: str, shape: Shape) -> npt.NDArray[np.float32]:
    if len(shape) == 1:
        return np.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=np.float32)
    weight: npt.NDArray[np.float32] = rng.standard_normal(shape, dtype=np.float32) * np.float32(
        0.02
    )
    return weight


def encode(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    """The bits of ``values``; bf16 is the upper half of f32, rounded to nearest even."""
    if dtype == "float32":
        return values
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class Safetensors:
    """The tensors of a file, mapped: bits as ``uint16`` for bf16, else ``float32``."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            self.header: dict[str, Any] = json.loads(file.read(size))
        self.data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + size)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        entry = self.header[name]
        start, end = entry["data_offsets"]
        dtype = np.uint16 if entry["dtype"] == "BF16" else np.float32
        tensor: npt.NDArray[Any] = self.data[start:end].view(dtype).reshape(entry["shape"])
        return tensor


def write_llama_gguf(target: Path, source: Path, config: Mapping[str, Any]) -> None:
    """The Llama of ``source`` (model.safetensors) as GGUF, without a vocabulary."""
    tensors = llama_gguf_tensors(Safetensors(source), config)
    with target.open("wb") as file:
        metadata = llama_gguf_metadata(config)
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, value in metadata.items():
            write_gguf_value(file, key, value)
        offset = 0
        for name, tensor in tensors.items():
            kind = GGUF_TENSOR_BF16 if tensor.dtype == np.uint16 else GGUF_TENSOR_F32
            write_gguf_string(file, name)
            sizes = tensor.shape[::-1]  # innermost first
            file.write(struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset))
            offset += tensor.nbytes + -tensor.nbytes % GGUF_ALIGNMENT
        for tensor in tensors.values():
            file.write(b"\0" * (-file.tell() % GGUF_ALIGNMENT))
            file.write(np.ascontiguousarray(tensor).tobytes())


def llama_gguf_metadata(config: Mapping[str, Any]) -> dict[str, int | float | str]:
    return {
        "general.architecture": "llama",
        "general.name": "random",
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "llama.rope.freq_base": float(config["rope_theta"]),
        "llama.rope.dimension_count": config["hidden_size"] // config["num_attention_heads"],
        "llama.vocab_size": config["vocab_size"],
        "tokenizer.ggml.model": "no_vocab",
    }


def llama_gguf_tensors(
    source: Safetensors, config: Mapping[str, Any]
) -> dict[str, npt.NDArray[Any]]:
    parts = {
        "attn_q": ("self_attn.q_proj", config["num_attention_heads"]),
        "attn_k": ("self_attn.k_proj", config["num_key_value_heads"]),
        "attn_v": ("self_attn.v_proj", 0),
        "attn_output": ("self_attn.o_proj", 0),
        "ffn_gate": ("mlp.gate_proj", 0),
        "ffn_up": ("mlp.up_proj", 0),
        "ffn_down": ("mlp.down_proj", 0),
        "attn_norm": ("input_layernorm", 0),
        "ffn_norm": ("post_attention_layernorm", 0),
    }
    tensors = {
        "token_embd.weight": source["model.embed_tokens.weight"],
        "output_norm.weight": norm_as_f32(source["model.norm.weight"]),
        "output.weight": source["lm_head.weight"],
    }
    for index in range(config["num_hidden_layers"]):
        for name, (part, heads) in parts.items():
            tensor = source[f"model.layers.{index}.{part}.weight"]
            if heads:
                tensor = interleave_halves(tensor, heads)
            tensors[f"blk.{index}.{name}.weight"] = (
                norm_as_f32(tensor) if tensor.ndim == 1 else tensor
            )
    return tensors


def interleave_halves(weight: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """GGUF's Llama rotates neighbouring pairs where Hugging Face's rotates the halves of a head."""
    rows, width = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, width)
    pairs: npt.NDArray[Any] = halves.swapaxes(1, 2).reshape(rows, width)
    return pairs


def norm_as_f32(bits: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if bits.dtype == np.float32:
        return bits
    return (bits.astype(np.uint32) << 16).view(np.float32)


def write_gguf_value(file: BinaryIO, key: str, value: int | float | str) -> None:
    write_gguf_string(file, key)
    if isinstance(value, str):
        file.write(struct.pack("<I", GGUF_STRING))
        write_gguf_string(file, value)
    elif isinstance(value, float):
        file.write(struct.pack("<If", GGUF_F32, value))
    else:
        file.write(struct.pack("<II", GGUF_U32, value))


def write_gguf_string(file: BinaryIO, text: str) -> None:
    encoded = text.encode()
    file.write(struct.pack("<Q", len(encoded)) + encoded)
