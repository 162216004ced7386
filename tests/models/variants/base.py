"""What a variant is, and the weights and inputs that all of them are compared with."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

#: Around the borders of KV pages (64), of attention tiles, and far from them.
LENGTHS = (1, 2, 63, 64, 65, 130, 300)
RAGGED = (7, 65, 1, 20)
N_POSITIONS = 320
N_PIECES = 101


@dataclass(frozen=True)
class Variant:
    """``names`` says how parameters are called: as the plain model saves them, with the prefix of a
    model with a head (``prefixed``), as old checkpoints had them (``gamma``), or as they are called
    inside transformers, which saves them under an older name (``inside``)."""

    name: str
    config: dict[str, Any]
    kind: Literal["encoder", "decoder"]
    golden: bool = False
    names: str = "plain"

    @property
    def architecture(self) -> str:
        return str(self.config["model_type"])

    @property
    def is_decoder(self) -> bool:
        return self.kind == "decoder"

    def __str__(self) -> str:
        return f"{self.architecture}-{self.name}"


#: What is stored of the golden ones: a padded batch, and these places of a long sequence, on both
#: sides of 64 and 128 and at the ends.
GOLDEN_RAGGED = (5, 11, 1)
GOLDEN_LONG = 300
GOLDEN_PLACES = [0, 1, 62, 63, 64, 65, 127, 128, 129, 298, 299]


def random_weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values of the parameter that a checkpoint stores as ``name``, the same wherever asked.

    Norms and biases are not their defaults. Queries and keys are scaled so that scores spread by
    some 2, and feed-forward inputs so that activations are used where they bend.
    """
    # RandomState's stream is frozen by NumPy's policy; that of newer generators is not.
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    lower = name.lower()
    if name.endswith(("bias", "beta")):
        values *= 0.3
    elif "norm" in lower:
        values = 1 + 0.3 * values
    elif "embed" not in lower or "embed_out" in lower:
        bends = ("query", "key", "q_proj", "k_proj", "gate", "up_proj", "intermediate", "h_to_4h")
        gain = 1.5 if any(part in lower for part in bends) else 1.0
        values *= gain / np.sqrt(shape[1])
    return values.astype(np.float32)


def stored_name(variant: Variant, name: str) -> str:
    """transformers' name of a parameter -> the one in the variant's checkpoint."""
    renames = []
    if variant.architecture == "gpt_neox" and variant.names != "inside":
        renames.append(("lm_head.weight", "embed_out.weight"))
    if "gamma" in variant.names:
        renames += [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")]
    for new, old in renames:
        if name.endswith(new):
            return name.removesuffix(new) + old
    return name


def piece_ids(seed: int, *shape: int) -> np.ndarray:
    """Pieces without 0, which pads."""
    return np.random.RandomState(seed).randint(1, N_PIECES, shape).astype(np.int64)


def ragged_batch(left: bool, lengths: tuple[int, ...] = RAGGED) -> tuple[np.ndarray, np.ndarray]:
    """Ids ``[batch, seq]``, the same sequences padded on either side, and their mask."""
    ids = np.zeros((len(lengths), max(lengths)), dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=bool)
    for row, length in enumerate(lengths):
        columns = slice(-length, None) if left else slice(0, length)
        ids[row, columns] = piece_ids(100 + row, length)
        mask[row, columns] = True
    return ids, mask
