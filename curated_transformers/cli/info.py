"""``info``: what a model is, and whether this package runs it. Configuration and headers are read;
no weights, and none are downloaded."""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import GGUFFile, is_gguf
from ..checkpoint.bitsandbytes import format_of, side_parts
from ..models.auto_model import (
    AutoCausalLM,
    AutoDecoder,
    AutoEncoder,
    AutoModel,
    UnsupportedModelError,
)
from ..models.parameters import ParameterNames
from ..repository import HfHubRepository, LocalRepository, ModelRepository, Repository
from . import options as shared
from .headers import Checkpoint, gguf_checkpoint, read_headers
from .text import bytes_text, counted, table

_AUTO: dict[type[AutoModel[Any]], str] = {
    AutoCausalLM: "causal language model",
    AutoEncoder: "encoder",
    AutoDecoder: "decoder",
}
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

Rows = list[tuple[str, str]]


@dataclass
class Model:
    """What is known of a model; what is missing is None, and ``problem`` says why."""

    where: str
    architecture: str
    kind: str | None = None
    config: Any = None
    fields: dict[str, Any] | None = None
    checkpoint: Checkpoint | None = None
    problem: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_model(parser)


def run(options: argparse.Namespace) -> None:
    path = shared.local_path(options.model)
    if path is not None and is_gguf(path):
        model = inspect_gguf(path)
    elif path is not None:
        model = inspect_repo(LocalRepository(path))
    else:
        model = inspect_repo(HfHubRepository(options.model, revision=options.revision))
    print(table(_rows(model)))


def inspect_repo(repo: Repository) -> Model:
    """Raises ``OSError`` without a readable config.json."""
    hf_config = ModelRepository(repo).model_config()
    model = Model(repo.pretty_path(), str(hf_config.get("model_type")))
    names = None
    try:
        found, model.kind = _class_and_kind(repo)
        model.config = found.config_from_hf(hf_config)
        names = _take_class(model, found)
    except ValueError as error:
        model.problem = str(error)
    try:
        model.checkpoint = read_headers(repo)
    except (OSError, ValueError, NotImplementedError) as error:
        model.problem = model.problem or str(error)
    else:
        model.problem = model.problem or _problem_of_tensors(model.checkpoint, names)
    return model


def inspect_gguf(path: Path) -> Model:
    """Raises ``OSError`` for a file that cannot be read, ``ValueError`` for a broken one."""
    file = GGUFFile(path)
    model = Model(str(path), str(file.metadata.get("general.architecture")))
    model.checkpoint = gguf_checkpoint(file)
    try:
        found = AutoCausalLM.class_for_gguf(file)
        model.kind = _kind(found, _AUTO[AutoCausalLM])
        model.config, names = found.from_gguf_metadata(file)
        _take_class(model, found)
        model.problem = _problem_of_tensors(model.checkpoint, names)
    except ValueError as error:
        model.problem = str(error)
    return model


def _class_and_kind(repo: Repository) -> tuple[Any, str]:
    problem = None
    for auto, kind in _AUTO.items():
        try:
            found = auto.class_for_repo(repo)
        except UnsupportedModelError as error:
            problem = problem or error
        else:
            return found, _kind(found, kind)
    assert problem is not None
    raise problem


def _kind(found: Any, kind: str) -> str:
    return f"{kind}, {found.__name__}"


def _take_class(model: Model, found: Any) -> ParameterNames:
    """The shape of the model. Raises ``ValueError`` for a configuration that none can have."""
    model.fields = found.spec_from_config(model.config).fields
    found(model.config)
    names: ParameterNames = found.names_from_config(model.config)
    return names


def _problem_of_tensors(checkpoint: Checkpoint, names: ParameterNames | None) -> str | None:
    for file in checkpoint.headers:
        unknown = {info.dtype for info in file.infos.values()} - set(file.supported)
        if unknown:
            return f"its tensors of type {', '.join(sorted(unknown))} cannot be read"
    try:
        matrices = _quantized(checkpoint)
        sides = {key for matrix in matrices.values() for key in matrix.sides}
        if names is not None:
            list(names.found(checkpoint.tensors.keys() - sides))
    except ValueError as error:
        return str(error)
    return None


@dataclass
class Quantized:
    """A matrix that bitsandbytes quantized: its format, its values, and the keys beside it."""

    format: str
    n_values: int
    sides: list[str]


def _quantized(checkpoint: Checkpoint) -> dict[str, Quantized]:
    """Those of a checkpoint, by name. Raises ``ValueError`` for keys that belong to none."""
    found = {}
    for name, parts in side_parts(checkpoint.tensors).items():
        info = checkpoint.tensors.get(name)
        if info is None:
            raise ValueError(f"the checkpoint holds `{min(parts.values())}`, but no `{name}`")
        format = format_of(parts)
        n_bytes = info.end - info.begin
        n_values = n_bytes if format == "llm_int8" else 2 * n_bytes
        found[name] = Quantized(format, n_values, list(parts.values()))
    return found


# ---- what is printed ----


def _rows(model: Model) -> Rows:
    supported = "yes" if model.problem is None else f"no: {' '.join(model.problem.split())}"
    rows = [
        ("model", model.where),
        ("architecture", model.architecture + (f" ({model.kind})" if model.kind else "")),
        ("supported", supported),
    ]
    if model.fields is not None:
        rows.append(("shape", _shape(model.fields)))
    if model.checkpoint is not None:
        rows += _checkpoint_rows(model.checkpoint)
        if model.config is not None and model.checkpoint.headers:
            rows.append(("memory", _memory(model)))
        rows.append(("read", _read(model.checkpoint)))
    return rows


def _shape(fields: dict[str, Any]) -> str:
    heads = fields["n_heads"]
    kv_heads = fields.get("n_kv_heads") or heads
    parts = [
        counted(fields["n_layers"], "layer"),
        f"width {fields['hidden_width']}",
        f"{heads} heads" + (f" ({kv_heads} of keys and values)" if kv_heads != heads else ""),
        f"{fields['n_pieces']} pieces",
    ]
    positions = fields.get("max_positions") or fields.get("n_positions")
    return ", ".join(parts + ([f"{positions} positions"] if positions else []))


def _checkpoint_rows(checkpoint: Checkpoint) -> Rows:
    counts: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = defaultdict(int)
    matrices: dict[str, int] = defaultdict(int)
    quantized, sides = _quantized_or_none(checkpoint)
    for name, info in checkpoint.tensors.items():
        matrix = quantized.get(sides.get(name, name))
        kind = info.dtype if matrix is None else matrix.format
        sizes[kind] += info.end - info.begin
        if matrix is None:
            counts[kind] += math.prod(info.shape)
        elif name in quantized:
            counts[kind] += matrix.n_values
            matrices[kind] += 1
    files = counted(checkpoint.n_files, "file")
    rows = [("checkpoint", f"{checkpoint.kind}, {files}, {bytes_text(checkpoint.size)}")]
    if not counts:
        return [*rows, ("parameters", "not counted: these files have to be downloaded for that")]
    rows.append(("parameters", f"{sum(counts.values()):,}"))
    for dtype in sorted(counts, key=lambda dtype: -sizes[dtype]):
        text = f"{dtype}: {counts[dtype]:,} in {bytes_text(sizes[dtype])}"
        if n := matrices.get(dtype):
            text += f", {n} matri{'x' if n == 1 else 'ces'} with their scales"
        rows.append(("", text))
    return rows


def _quantized_or_none(checkpoint: Checkpoint) -> tuple[dict[str, Quantized], dict[str, str]]:
    """Quantized matrices, and key beside one -> its name. None where keys do not fit, which is
    told elsewhere."""
    try:
        found = _quantized(checkpoint)
    except ValueError:
        return {}, {}
    return found, {key: name for name, matrix in found.items() for key in matrix.sides}


def _memory(model: Model) -> str:
    """Of the weights as they are computed with, and of what generation keeps for each piece."""
    assert model.checkpoint is not None
    assert model.fields is not None
    width = _BYTES[model.config.dtype]
    weights = 0
    _, sides = _quantized_or_none(model.checkpoint)
    for file in model.checkpoint.headers:
        for name, info in file.infos.items():
            is_float = file.supported.get(info.dtype) in _BYTES and name not in sides
            weights += math.prod(info.shape) * width if is_float else info.end - info.begin
    text = f"{bytes_text(weights)} of weights ({model.config.dtype} where they are not quantized)"
    fields = model.fields
    if not fields.get("causal"):
        return text
    heads = fields.get("n_kv_heads") or fields["n_heads"]
    head = fields.get("head_width") or fields["hidden_width"] // fields["n_heads"]
    piece = 2 * fields["n_layers"] * heads * head * width
    return f"{text}, {bytes_text(1000 * piece)} of cache for 1000 pieces"


def _read(checkpoint: Checkpoint) -> str:
    if checkpoint.kind == "GGUF":
        return "the file's metadata; no weights"
    text = "config.json and the files' headers" if checkpoint.headers else "config.json"
    return f"{text}; no weights" + (", and none were downloaded" if checkpoint.n_remote else "")
