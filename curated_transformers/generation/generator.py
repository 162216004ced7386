"""Generation on piece ids."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .._core import Tensor
from ..models.module import CausalLMModule
from .config import GeneratorConfig, masked_array


class Generator:
    """Generates pieces with a causal language model."""

    def __init__(self, model: CausalLMModule[Any]) -> None:
        self.model = model

    def __call__(
        self, *, attention_mask: Any, ids: Any, config: GeneratorConfig
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See :meth:`generate`."""
        return self.generate(attention_mask=attention_mask, ids=ids, config=config)

    def generate(
        self, *, attention_mask: Any, ids: Any, config: GeneratorConfig
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields, for each step in which a sequence emits a piece, the sequences' numbers ``[n]``
        and their pieces ``[n, 1]``, both int64. ``ids`` and the mask are ``[batch, seq]``. Lazy:
        errors of the configuration appear at the first step."""
        mask = getattr(attention_mask, "bool_mask", attention_mask)
        prompts = _real_pieces(np.asarray(ids), np.asarray(mask))
        session = self.start(prompts, config, config.eos_ids)
        while not session.is_done:
            emitted = [(number, piece) for number, piece, _ in session.run(1) if piece >= 0]
            if emitted:
                numbers, pieces = zip(*emitted, strict=True)
                yield Tensor(np.array(numbers)), Tensor(np.array(pieces)[:, None])

    def start(
        self, prompts: Sequence[Any], config: GeneratorConfig, eos_ids: Iterable[int]
    ) -> _core.Session:
        """A session with these prompts queued; the number of each is its place in the list.

        Raises ``ValueError`` for an empty prompt and for one that is longer than the model's
        positions, ``IndexError`` for ids outside the vocabulary; both name the prompt.
        """
        options = self.session_options(config, eos_ids)
        session = _core.Session(self.model.core)
        for row, prompt in enumerate(prompts):
            try:
                session.add(prompt, row=row, **options)
            except (ValueError, IndexError) as error:
                raise type(error)(f"prompt {row}: {error}") from None
        return session

    def session_options(self, config: GeneratorConfig, eos_ids: Iterable[int]) -> dict[str, Any]:
        """What a session takes of a configuration with a prompt. Without a seed in the
        configuration, each time with another one. ``ValueError`` for settings that cannot be
        used."""
        config.check()
        sampling, seed = config.sampling(), getattr(config, "seed", None)
        return {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "seed": secrets.randbits(63) if seed is None else seed,
            "banned": masked_array(config.masked_pieces, self.model.config.embedding.n_pieces),
            "eos_ids": list(eos_ids),
            "max_pieces": config.max_generated_pieces or 0,
        }


def _real_pieces(ids: npt.NDArray[Any], mask: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """The pieces of each sequence that the mask, of any shape with as many entries, leaves."""
    if ids.ndim != 2:
        raise ValueError(f"ids must have the shape [batch, seq], has {ids.ndim} dimensions")
    if mask.dtype != np.bool_:
        raise ValueError(f"expected attention mask to be of dtype bool, was: {mask.dtype}")
    if mask.size != ids.size or mask.shape[0] != ids.shape[0]:
        raise ValueError(
            f"the attention mask has the shape {list(mask.shape)}, the ids {list(ids.shape)}"
        )
    return [row[keep] for row, keep in zip(ids, mask.reshape(ids.shape), strict=True)]
