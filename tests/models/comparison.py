"""Our models of variants, their stored values, and how far two results are apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from models.variants import Variant, random_weights

from curated_transformers.models import AutoCausalLM, AutoEncoder

# Two orders of summation and two math libraries in f32 are up to 1e-5 apart here, at the token
# where most cancels. Two kinds of GELU, the closest of what must be told apart, by more than 1e-4.
LIMIT = 5e-5


def golden_values(variant: Variant) -> dict[str, np.ndarray]:
    """What is stored of a golden variant."""
    with np.load(Path(__file__).parent.parent / "golden" / f"{variant.architecture}.npz") as arrays:
        return {
            key.removeprefix(variant.name + "/"): arrays[key]
            for key in arrays.files
            if key.startswith(variant.name + "/")
        }


def golden_weights(variant: Variant) -> dict[str, np.ndarray]:
    """The tensors of its checkpoint, without transformers."""
    shapes = json.loads(str(golden_values(variant)["shapes"]))
    return {name: random_weights(name, tuple(shape)) for name, shape in shapes.items()}


def load(variant: Variant, folder: Path, **options: Any) -> Any:
    """Ours of a checkpoint: with the head, where the architecture has one."""
    auto = AutoCausalLM if variant.is_decoder else AutoEncoder
    return auto.from_path(folder, **options)


def write_config(variant: Variant, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(variant.config))


def results(output: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Hidden states ``[states, batch, seq, width]`` and logits of a call."""
    hidden = np.stack([np.asarray(state) for state in output.all_outputs])
    logits = getattr(output, "logits", None)
    return hidden, None if logits is None else np.asarray(logits)


def distance(ours: np.ndarray, expected: np.ndarray) -> float:
    """The largest norm of a difference over the norm of what is expected, over the last axis. Rows
    that are expected to be zeros must be."""
    assert ours.shape == expected.shape
    difference = np.linalg.norm(np.float64(ours) - expected, axis=-1)
    norms = np.linalg.norm(np.float64(expected), axis=-1)
    assert np.isfinite(difference).all()
    assert not difference[norms == 0].any()
    return float((difference[norms > 0] / norms[norms > 0]).max())


def assert_close(
    ours: tuple[np.ndarray, np.ndarray | None],
    expected: tuple[np.ndarray, np.ndarray | None],
) -> None:
    """Hidden states of every layer and token, and logits, are within the limit."""
    for mine, theirs in zip(ours[0], expected[0], strict=True):
        assert distance(mine, theirs) <= LIMIT
    assert (ours[1] is None) == (expected[1] is None)
    if ours[1] is not None and expected[1] is not None:
        assert distance(ours[1], expected[1]) <= LIMIT
