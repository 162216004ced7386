"""Which files hold a model's parameters, and one mapping over all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from .._core import Tensor
from .safetensors import SafeTensorsFile

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class ShardedCheckpoint(Mapping[str, Tensor]):
    """The tensors of several files under one roof. A name that two files hold is an error."""

    def __init__(self, shards: list[SafeTensorsFile]) -> None:
        self._where: dict[str, SafeTensorsFile] = {}
        for shard in shards:
            for name in shard:
                if name in self._where:
                    raise ValueError(f"parameter `{name}` stands in two shards, the second is {shard.path}")
                self._where[name] = shard

    def __getitem__(self, name: str) -> Tensor:
        return self._where[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def check_file_name(name: object, source: Path) -> str:
    """``name`` when it is a plain relative file name; ``ValueError`` for one that leads elsewhere."""
    text = name if isinstance(name, str) else ""
    parts = text.split("/")
    if not text or "\\" in text or "\0" in text or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{source}: {name!r} is not a file name inside the checkpoint's folder")
    return text


def load_checkpoint(folder: Path) -> Mapping[str, Tensor]:
    """The parameters of the model in ``folder``: ``model.safetensors``, else the shards that its index
    names. Raises ``OSError`` when there is no checkpoint or a shard is missing."""
    if (folder / SINGLE).exists():
        return SafeTensorsFile(folder / SINGLE)
    index = folder / INDEX
    if index.exists():
        return ShardedCheckpoint([_open_shard(folder, name) for name in _shard_names(index)])
    for name in TORCH:
        if (folder / name).exists():
            raise NotImplementedError(f"torch checkpoints are not supported yet: {folder / name}")
    raise OSError(f"Index file for sharded checkpoint type SafeTensors could not be loaded `{index}`")


def _open_shard(folder: Path, name: str) -> SafeTensorsFile:
    try:
        return SafeTensorsFile(folder / name)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"File for sharded checkpoint type SafeTensors could not be found at {folder / name}"
        ) from None


def _shard_names(index: Path) -> list[str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"Invalid index file in sharded SafeTensors checkpoint `{index}`: {error}") from None
    if not isinstance(weight_map, dict):
        raise OSError(f"Invalid index file in sharded SafeTensors checkpoint `{index}`")
    return sorted({check_file_name(name, index) for name in weight_map.values()})
