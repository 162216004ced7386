"""Texts to vectors with an encoder: tokenize, run in batches of similar length, pool.

The hidden states of a batch are pooled where they are computed; only one vector a text is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from .sentence_transformers import Pooling

Vectors = npt.NDArray[np.float32]

#: Runs a padded batch and pools its last hidden states: (ids, mask, pooling) -> [batch, width].
Runner = Callable[[npt.NDArray[np.int32], npt.NDArray[np.bool_], Pooling], Vectors]


def truncated(
    pieces: Sequence[Sequence[int]], empty: Sequence[int], longest: int | None
) -> list[Sequence[int]]:
    """Each text's ids in at most ``longest`` pieces.

    ``empty`` are the pieces of an empty text: those that the tokenizer adds before and behind every
    text. The ones behind stay at the end.
    """
    if longest is None:
        return list(pieces)
    if longest <= len(empty):
        raise ValueError(
            f"texts of at most {longest} pieces have no room beside the {len(empty)} that the "
            "tokenizer adds"
        )
    return [ids if len(ids) <= longest else _cut(ids, empty, longest) for ids in pieces]


def _cut(ids: Sequence[int], empty: Sequence[int], longest: int) -> Sequence[int]:
    before = 0
    while before < len(empty) and ids[before] == empty[before]:
        before += 1
    behind = len(empty) - before
    return [*ids[: longest - behind], *ids[len(ids) - behind :]]


def batches(
    lengths: Sequence[int], batch_size: int | None, max_batch_tokens: int
) -> Iterator[list[int]]:
    """Numbers of texts, the longest first: as many together as the budget of pieces allows, and at
    most ``batch_size``."""
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        full = batch_size is not None and len(batch) == batch_size
        if batch and (full or tokens + lengths[index] > max_batch_tokens):
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch


def encode_pieces(
    run: Runner,
    pieces: Sequence[Sequence[int]],
    width: int,
    *,
    pooling: Pooling,
    normalize: bool,
    batch_size: int | None,
    max_batch_tokens: int,
    progress: bool,
) -> Vectors:
    """``[texts, width]``, in the order of ``pieces``."""
    vectors = np.zeros((len(pieces), width), dtype=np.float32)
    with _progress_bar(len(pieces)) if progress else nullcontext() as bar:
        for batch in batches([len(ids) for ids in pieces], batch_size, max_batch_tokens):
            longest = max(1, len(pieces[batch[0]]))
            ids = np.zeros((len(batch), longest), dtype=np.int32)
            mask = np.zeros(ids.shape, dtype=bool)
            for row, index in enumerate(batch):
                ids[row, : len(pieces[index])] = pieces[index]
                mask[row, : len(pieces[index])] = True
            vectors[batch] = run(ids, mask, pooling)
            if bar is not None:
                bar.update(len(batch))
    if normalize:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.maximum(norms, 1e-12)
    return vectors


def _progress_bar(total: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, unit="text")
