"""The variants of each architecture that are compared with transformers, as data.

A variant is the config.json that a checkpoint of it would come with. The models are small, their
widths are no multiples of a vector where that may matter, and every option that changes a result
has a variant. `oracles/random_models.py` builds them, `test_parity.py` compares all of them live
and `test_golden.py` those marked golden with stored values. Each architecture has a file here with
its `VARIANTS`, and the sets of their names that mean the same model in `SAME_MEANING`.
"""

from __future__ import annotations

import importlib
import pkgutil

from models.variants.base import (
    GOLDEN_LONG,
    GOLDEN_PLACES,
    GOLDEN_RAGGED,
    LENGTHS,
    N_PIECES,
    N_POSITIONS,
    RAGGED,
    Variant,
    piece_ids,
    ragged_batch,
    random_weights,
    stored_name,
)

_FILES = [
    importlib.import_module(f"{__name__}.{module.name}")
    for module in pkgutil.iter_modules(__path__)
    if module.name != "base"
]
VARIANTS: list[Variant] = [variant for file in _FILES for variant in file.VARIANTS]
SAME_MEANING: dict[str, list[set[str]]] = {}
for _file in _FILES:
    for _variant in _file.VARIANTS:
        SAME_MEANING[_variant.architecture] = _file.SAME_MEANING
GOLDEN = [variant for variant in VARIANTS if variant.golden]

__all__ = [
    "GOLDEN",
    "GOLDEN_LONG",
    "GOLDEN_PLACES",
    "GOLDEN_RAGGED",
    "LENGTHS",
    "N_PIECES",
    "N_POSITIONS",
    "RAGGED",
    "SAME_MEANING",
    "VARIANTS",
    "Variant",
    "piece_ids",
    "ragged_batch",
    "random_weights",
    "stored_name",
]
