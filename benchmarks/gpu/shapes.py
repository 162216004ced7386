"""Models of which only the shape is real, and their checkpoints, written in seconds.

Speed does not depend on the weights' values, but for LLM.int8: values of its input that pass the
threshold are multiplied in another way. So one feature in ``OUTLIER_PERIOD`` leaves each norm large
enough to pass it, as a few do in trained models.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..checkpoints import Shape, encode, safetensors_header
from ..quantizing import DOLLY_3B
from ..quantizing import shapes as gpt_neox_shapes
from ..workloads import BERT_BASE, LLAMA_1B, bert_shapes, llama_shapes, mixed_lengths

OUTLIER_PERIOD, OUTLIER_SIZE = 512, 12.0
TILE_VALUES = 1 << 23

LLAMA_2_7B: Mapping[str, Any] = {
    **LLAMA_1B,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
}
SMALL: Mapping[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 300,
}


@dataclass(frozen=True)
class ModelShape:
    name: str
    kind: Literal["decoder", "encoder"]
    config: Mapping[str, Any]
    tensors: Callable[[Mapping[str, Any]], dict[str, Shape]]
    #: Decoders: lengths of each prompt, of what is generated, and of the prompt for prefill.
    prompt: int = 128
    new: int = 128
    prefill: int = 2048
    batches: tuple[int, ...] = (1, 8, 32)
    #: Encoders: lengths of the batch's sequences.
    lengths: tuple[int, ...] = ()

    def bytes(self) -> int:
        return sum(2 * int(np.prod(shape)) for shape in self.tensors(self.config).values())

    def matrix_values(self) -> tuple[int, int]:
        """Values of the layers' matrices, and of the head: what a new token is multiplied by."""
        layers = head = 0
        for name, shape in self.tensors(self.config).items():
            if name in ("lm_head.weight", "embed_out.weight"):
                head = int(np.prod(shape))
            elif ".layers." in name and len(shape) == 2:
                layers += int(np.prod(shape))
        return layers, head


def tiny(name: str, base: Mapping[str, Any], **fields: Any) -> ModelShape:
    """For trying the program where there is no GPU."""
    config = {**base, **SMALL}
    if "num_key_value_heads" in base:
        config["num_key_value_heads"] = 2
    return ModelShape(name, config=config, prompt=9, new=4, prefill=20, batches=(1, 3), **fields)


SHAPES = {
    shape.name: shape
    for shape in (
        ModelShape("dolly-v2-3b", "decoder", DOLLY_3B, gpt_neox_shapes),
        ModelShape("llama-2-7b", "decoder", LLAMA_2_7B, llama_shapes),
        ModelShape("bert-base", "encoder", BERT_BASE, bert_shapes, lengths=mixed_lengths(128)),
        tiny("tiny-gpt-neox", DOLLY_3B, kind="decoder", tensors=gpt_neox_shapes),
        tiny("tiny-llama", LLAMA_1B, kind="decoder", tensors=llama_shapes),
        tiny("tiny-bert", BERT_BASE, kind="encoder", tensors=bert_shapes, lengths=(5, 9)),
    )
}


def choose_folder(n_bytes: int) -> Path:
    """A folder of its own where the checkpoints fit: in memory, else on a disk."""
    places = [Path("/dev/shm"), Path(tempfile.gettempdir())]
    for place in places:
        if place.is_dir() and shutil.disk_usage(place).free > n_bytes * 1.1:
            return Path(tempfile.mkdtemp(prefix="gpu-bench-", dir=place))
    raise SystemExit(
        f"the checkpoints take {n_bytes / 1e9:.0f} GB, and there is no room for them in "
        f"{' nor '.join(map(str, places))}: set TMPDIR, or leave shapes out (--shapes)"
    )


def write_checkpoint(shape: ModelShape, folder: Path) -> Path:
    path = folder / shape.name
    path.mkdir()
    write_tiled(path / "model.safetensors", shape.tensors(shape.config))
    config = {**shape.config, "torch_dtype": "bfloat16"}
    (path / "config.json").write_text(json.dumps(config))
    return path


def write_tiled(path: Path, shapes: Mapping[str, Shape]) -> None:
    """Matrices are cut from one random tile of 16 MB, laid end to end; several files' parts are
    written at once."""
    tile = np.random.default_rng(0).standard_normal(TILE_VALUES, dtype=np.float32)
    bits = encode(tile * np.float32(0.02), "bfloat16").view(np.uint8)
    header = safetensors_header(shapes, "bfloat16")
    pieces: list[tuple[int, Any]] = [(0, header)]
    offset = len(header)
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        if len(shape) == 1:
            pieces.append((offset, encode(vector(name, shape[0]), "bfloat16")))
        else:
            pieces += [(offset + at, bits[: size - at]) for at in range(0, size, bits.nbytes)]
        offset += size
    with path.open("wb") as file, ThreadPoolExecutor() as pool:
        file.truncate(offset)
        list(pool.map(lambda piece: write_at(file.fileno(), *piece), pieces))


def write_at(file: int, offset: int, data: Any) -> None:
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def vector(name: str, n: int) -> npt.NDArray[np.float32]:
    if name.endswith("bias"):
        return np.zeros(n, dtype=np.float32)
    values = np.ones(n, dtype=np.float32)
    if "layernorm" in name:
        values[::OUTLIER_PERIOD] = OUTLIER_SIZE
    return values
