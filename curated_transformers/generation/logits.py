"""Transforms of logits over arrays and tensors, as statements of what the core does while it
generates, and for programs of their own.

Logits are ``[..., pieces]``: NumPy arrays, this package's tensors or torch's, of floats. What is
"masked" becomes the lowest finite value of their dtype.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .._core import Tensor
from ..layers.mask import LOWEST_FINITE

Array: TypeAlias = npt.NDArray[Any]


class LogitsTransform(ABC):
    """Base of all transforms. A subclass changes the array that ``_process_logits`` gets."""

    def __call__(self, logits: Any, inplace: bool = False) -> Any:
        """The transformed logits, of the kind that they came as; with ``inplace`` the same object,
        changed. ``ValueError`` where it cannot be changed."""
        if isinstance(logits, Tensor):
            return self._of_tensor(logits, inplace)
        if type(logits).__module__ == "torch":
            return self._of_torch(logits, inplace)
        if not isinstance(logits, np.ndarray) and inplace:
            raise ValueError(f"a {type(logits).__name__} cannot be changed in place")
        values = logits if inplace else np.array(logits)
        self._change(values)
        return values

    @abstractmethod
    def _process_logits(self, logits: Array) -> None:
        """Changes ``logits [..., pieces]``."""

    def _change(self, values: Array) -> None:
        if values.dtype.kind != "f" or values.ndim == 0:
            raise TypeError(
                f"logits must be floats [..., pieces], got {values.dtype} of the shape "
                f"{list(values.shape)}"
            )
        self._process_logits(values)

    def _of_tensor(self, logits: Tensor, inplace: bool) -> Tensor:
        values = logits.numpy()
        if not inplace:
            values = values.copy()
            self._change(values)
            return Tensor(_within(values, logits.dtype), dtype=logits.dtype)
        if logits.dtype == "bfloat16":
            raise ValueError("a bfloat16 tensor cannot be changed in place")
        self._change(values)
        return logits

    def _of_torch(self, logits: Any, inplace: bool) -> Any:
        torch = sys.modules["torch"]
        dtype = str(logits.dtype).removeprefix("torch.")
        plain = logits.detach().cpu()
        values = (plain.float() if dtype in LOWEST_FINITE else plain).numpy().copy()
        self._change(values)
        changed = torch.from_numpy(_within(values, dtype)).to(logits)
        if not inplace:
            return changed
        with torch.no_grad():
            logits.copy_(changed)
        return logits


def _within(values: Array, dtype: str) -> Array:
    """What lies below the finite values of ``dtype`` becomes the lowest of them, so that it is not
    rounded to minus infinity."""
    lowest = LOWEST_FINITE.get(dtype)
    return values if lowest is None else np.maximum(values, values.dtype.type(lowest))


def _mask(logits: Array, where: Any) -> None:
    logits[where] = np.finfo(logits.dtype).min


class CompoundLogitsTransform(list[LogitsTransform], LogitsTransform):
    """A list of transforms, applied in order."""

    def _process_logits(self, logits: Array) -> None:
        for transform in self:
            transform(logits, inplace=True)


class VocabMaskTransform(LogitsTransform):
    """Masks pieces, so that they are never chosen.

    Raises ``ValueError`` for ids that are not one-dimensional or negative, ``TypeError`` for what
    is no id; when it is called, ``ValueError`` for ids that are no pieces.
    """

    def __init__(self, pieces_to_mask: Iterable[int]) -> None:
        ids = [np.asarray(piece) for piece in pieces_to_mask]
        if any(piece.ndim > 0 for piece in ids):
            raise ValueError("Pieces to mask must be 1D")
        if any(piece.dtype.kind not in "iu" for piece in ids):
            raise TypeError(f"Pieces to mask must be whole numbers, but got {pieces_to_mask!r}")
        if any(piece < 0 for piece in ids):
            raise ValueError(f"Pieces to mask must be >= 0, but got {min(ids)}")
        self.pieces_to_mask = np.array(ids, dtype=np.int64)

    def check(self, n_pieces: int) -> None:
        """``ValueError`` for ids that a model of ``n_pieces`` does not have."""
        if self.pieces_to_mask.size > 0 and self.pieces_to_mask.max() >= n_pieces:
            raise ValueError(
                f"Pieces to mask must be < {n_pieces}, but got {self.pieces_to_mask.max()}"
            )

    def _process_logits(self, logits: Array) -> None:
        self.check(logits.shape[-1])
        _mask(logits, (..., self.pieces_to_mask))


class TemperatureTransform(LogitsTransform):
    """Divides logits by ``temperature``; ``ValueError`` unless it is above 0."""

    def __init__(self, temperature: float = 1.0) -> None:
        if not temperature > 0:  # also refuses NaN
            raise ValueError(
                f"The temperature must be a non-zero positive value, was: {temperature}"
            )
        self.temperature = temperature

    def _process_logits(self, logits: Array) -> None:
        with np.errstate(over="ignore"):  # what is masked may become minus infinity
            np.divide(logits, self.temperature, out=logits)


class TopKTransform(LogitsTransform):
    """Masks what is smaller than the ``k``-th largest logit; what equals it stays. Does nothing for
    ``k`` below 1 or as many pieces as there are."""

    def __init__(self, k: int) -> None:
        self.k = k

    def _process_logits(self, logits: Array) -> None:
        n_pieces = logits.shape[-1]
        if 1 <= self.k < n_pieces:
            place = n_pieces - self.k
            cutoff = np.partition(logits, place, axis=-1)[..., place : place + 1]
            _mask(logits, logits < cutoff)


class TopPTransform(LogitsTransform):
    """Keeps the most probable pieces until their probabilities reach ``p``: each piece before which
    they have not, and always the first. ``ValueError`` unless ``p`` is between 0 and 1."""

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Top-p probability must be between 0 and 1 (inclusive), was: {p}")
        self.p = p

    def _process_logits(self, logits: Array) -> None:
        if self.p == 1:
            return
        order = np.argsort(-logits, axis=-1, kind="stable")
        probabilities = np.take_along_axis(_softmax(logits), order, axis=-1)
        before = np.cumsum(probabilities, axis=-1) - probabilities
        out = before >= self.p
        out[..., :1] = False
        masked = np.zeros_like(out)
        np.put_along_axis(masked, order, out, axis=-1)
        _mask(logits, masked)


class MinPTransform(LogitsTransform):
    """Masks pieces with less than the part ``p`` of the largest probability. ``ValueError`` unless
    ``p`` is between 0 and 1."""

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Min-p probability must be between 0 and 1 (inclusive), was: {p}")
        self.p = p

    def _process_logits(self, logits: Array) -> None:
        if self.p > 0:
            probabilities = _softmax(logits)
            largest = probabilities.max(axis=-1, keepdims=True)
            _mask(logits, probabilities < self.p * largest)


def _softmax(logits: Array) -> npt.NDArray[np.float64]:
    values = logits.astype(np.float64)
    weights = np.exp(values - values.max(axis=-1, keepdims=True))
    probabilities: npt.NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities


#: Changes the logits ``[pieces]`` of one text's next piece in place or returns others. A callable
#: also gets the text's ids so far, prompt and generated.
LogitsProcessor: TypeAlias = (
    LogitsTransform | Callable[[npt.NDArray[np.int32], npt.NDArray[np.float32]], Any]
)


def process(
    processor: LogitsProcessor, ids: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]
) -> None:
    """Makes ``logits`` what ``processor`` makes of them."""
    if isinstance(processor, LogitsTransform):
        processor(logits, inplace=True)
        return
    result = processor(ids, logits)
    if result is not None:
        if np.shape(result) != logits.shape:
            raise ValueError(
                f"the logits processor must return {list(logits.shape)} logits, returned "
                f"{list(np.shape(result))}"
            )
        logits[...] = result
