"""What every tokenizer offers, and the batch of pieces that it returns."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core import Tensor
from ..layers.attention import AttentionMask
from .chunks import InputChunks


@dataclass
class PiecesWithIds:
    """A batch of tokenized inputs: for each the piece ids, and the pieces themselves."""

    ids: list[list[int]]
    pieces: list[list[str]]

    def padded_tensor(
        self, *, padding_id: int = 0, pad_left: bool = False, device: Any = None
    ) -> Tensor:
        """The ids as ``[batch, longest]`` int32. Raises ``ValueError`` for an empty batch."""
        is_piece = self._is_piece(pad_left)
        padded = np.full(is_piece.shape, operator.index(padding_id), dtype=np.int32)
        padded[is_piece] = np.fromiter(chain.from_iterable(self.ids), np.int32)
        return _on_device(padded, device)

    def attention_mask(self, *, pad_left: bool = False, device: Any = None) -> AttentionMask:
        """The mask that goes with ``padded_tensor`` and the same ``pad_left``: True on pieces.

        Raises ``ValueError`` for an empty batch.
        """
        return AttentionMask(_on_device(self._is_piece(pad_left), device))

    def _is_piece(self, pad_left: bool) -> npt.NDArray[np.bool_]:
        if not self.ids:
            raise ValueError("An empty batch has no tensor: there must be at least one input")
        lengths = np.array([[len(ids)] for ids in self.ids])
        columns = np.arange(lengths.max())
        return columns >= lengths.max() - lengths if pad_left else columns < lengths


class TokenizerBase(ABC):
    """Text to piece ids and back."""

    def __call__(self, input: Iterable[str] | Iterable[InputChunks]) -> PiecesWithIds:
        """The same as ``encode``."""
        return self.encode(input)

    @abstractmethod
    def encode(self, input: Iterable[str] | Iterable[InputChunks]) -> PiecesWithIds:
        """Tokenizes a batch of texts or of chunks.

        Raises ``ValueError`` for elements of another type, a single string, unknown special pieces.
        """

    @abstractmethod
    def decode(
        self, input: Iterable[Sequence[int]], *, skip_special_pieces: bool = True
    ) -> list[str]:
        """The texts of a batch of id sequences."""

    @abstractmethod
    def piece_to_id(self, piece: str) -> int | None:
        """The id of a piece; None when the vocabulary lacks it."""

    @property
    @abstractmethod
    def eos_piece(self) -> str | None:
        """The piece that ends a text, if the tokenizer has one."""


def checked_batch(
    input: Iterable[str] | Iterable[InputChunks],
) -> tuple[list[str], list[InputChunks]]:
    """The elements of a batch as texts or as chunks; the other list is empty.

    What the first element is decides. Raises ``ValueError`` for elements of another type, and for a
    single string, which would be a batch of characters.
    """
    if isinstance(input, str):
        raise ValueError("Expected a list of texts, got a single string; write [text]")
    elements: list[Any] = list(input)
    if elements and isinstance(elements[0], str):
        _check_types(elements, str, "Non-string inputs")
        return elements, []
    _check_types(elements, InputChunks, "Non-chunk inputs")
    return [], elements


def checked_ids(input: Iterable[Sequence[int]]) -> list[list[int]]:
    """A batch of id sequences as lists. Raises ``TypeError`` for a single sequence, and for ids
    that are no whole numbers."""
    batch = []
    for element in input:
        try:
            ids = iter(element)
        except TypeError:
            raise TypeError(
                "Expected a list of id sequences, got a single one; write [ids]"
            ) from None
        batch.append([operator.index(piece_id) for piece_id in ids])
    return batch


def _check_types(elements: list[Any], wanted: type, message: str) -> None:
    others = {type(element).__name__ for element in elements if not isinstance(element, wanted)}
    if others:
        raise ValueError(f"{message}: {', '.join(sorted(others))}")


def _on_device(values: npt.NDArray[Any], device: Any) -> Tensor:
    tensor = Tensor(values)
    return tensor if device is None else tensor.to(device=device)
