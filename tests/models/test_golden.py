"""Small random models against stored values that transformers computed
(oracles/random_models.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoint_writers import write_safetensors
from models.comparison import (
    assert_close,
    golden_values,
    golden_weights,
    load,
    results,
    write_config,
)
from models.variants import (
    GOLDEN,
    GOLDEN_LONG,
    GOLDEN_PLACES,
    GOLDEN_RAGGED,
    Variant,
    piece_ids,
    ragged_batch,
)


class Golden:
    """A variant's stored values, and our model of it with the same weights."""

    def __init__(self, variant: Variant, folder: Path) -> None:
        self.values = golden_values(variant)
        write_safetensors(folder / "model.safetensors", golden_weights(variant))
        write_config(variant, folder)
        self.model = load(variant, folder)

    def expected(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        return self.values[f"{name}_hidden"], self.values.get(f"{name}_logits")


ALL = pytest.mark.parametrize("golden", GOLDEN, ids=str, indirect=True)
DECODERS = pytest.mark.parametrize(
    "golden", [variant for variant in GOLDEN if variant.is_decoder], ids=str, indirect=True
)


@pytest.fixture(scope="module")
def golden(request, tmp_path_factory):
    return Golden(request.param, tmp_path_factory.mktemp("golden"))


@ALL
def test_a_padded_batch(golden):
    ids, mask = ragged_batch(left=False, lengths=GOLDEN_RAGGED)
    hidden, logits = results(golden.model(ids, mask))
    assert not hidden[:, ~mask].any()
    ours = hidden[:, mask], None if logits is None else logits[mask]
    assert_close(ours, golden.expected("ragged"))


@ALL
def test_a_long_sequence(golden):
    hidden, logits = results(golden.model(piece_ids(1, 1, GOLDEN_LONG)))
    ours = hidden[:, 0, GOLDEN_PLACES], None if logits is None else logits[0, GOLDEN_PLACES]
    assert_close(ours, golden.expected("long"))


@DECODERS
def test_a_long_sequence_through_the_cache(golden):
    ids = piece_ids(1, 1, GOLDEN_LONG)
    parts, start, cache = [], 0, None
    for end in (60, 61, 64, 65, 130, 298, 299, GOLDEN_LONG):
        mask = np.ones((1, end), dtype=bool)
        output = golden.model(ids[:, start:end], mask, cache=cache, store_cache=True)
        parts.append(results(output))
        start, cache = end, output.cache
    hidden = np.concatenate([part[0] for part in parts], axis=2)[:, 0, GOLDEN_PLACES]
    logits = np.concatenate([part[1] for part in parts], axis=1)[0, GOLDEN_PLACES]
    assert_close((hidden, logits), golden.expected("long"))
