"""Generation on piece ids."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .._core import Tensor
from ..models.module import CausalLMModule
from .config import GeneratorConfig, check_kind
from .python_steps import PythonSteps, needs_python


class Generator:
    """Generates pieces with a causal language model.

    Each step computes up to ``max_batch_tokens`` pieces: one of each text that is being generated,
    and as many of the prompts that wait. Keys and values of up to ``max_cache_tokens`` positions
    are kept; more prompts wait. 0: chosen by the memory of the machine. Neither changes a text.
    """

    def __init__(
        self, model: CausalLMModule[Any], *, max_batch_tokens: int = 0, max_cache_tokens: int = 0
    ) -> None:
        self.model = model
        self.max_batch_tokens = max_batch_tokens
        self.max_cache_tokens = max_cache_tokens

    def new_session(self) -> _core.Session:
        """An empty session over the model."""
        return _core.Session(
            self.model.core,
            max_batch_tokens=self.max_batch_tokens,
            max_cache_tokens=self.max_cache_tokens,
        )

    def __call__(
        self, *, attention_mask: Any, ids: Any, config: GeneratorConfig
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See :meth:`generate`."""
        return self.generate(attention_mask=attention_mask, ids=ids, config=config)

    def generate(
        self, *, attention_mask: Any, ids: Any, config: GeneratorConfig
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields, for each step in which a sequence emits a piece, the sequences' numbers ``[n]``
        and their pieces ``[n, 1]``, both int64. ``ids`` and the mask are ``[batch, seq]``. With
        several texts for each row, row ``i`` has the numbers from ``i * num_return_sequences`` on.
        Stop strings are not looked for. Lazy: errors of the configuration appear at the first
        step."""
        mask = getattr(attention_mask, "bool_mask", attention_mask)
        prompts = _real_pieces(np.asarray(ids), np.asarray(mask))
        session = self.start(prompts, config)
        while not session.is_done:
            emitted = [(number, piece) for number, piece, _ in session.run(1) if piece >= 0]
            if emitted:
                numbers, pieces = zip(*emitted, strict=True)
                yield Tensor(np.array(numbers)), Tensor(np.array(pieces)[:, None])

    def start(
        self,
        prompts: Sequence[Any],
        config: GeneratorConfig,
        eos_ids: Iterable[int] | None = None,
    ) -> _core.Session | PythonSteps:
        """A session with these prompts queued; the number of each is its place in the list, in
        which each prompt stands ``num_return_sequences`` times. Its events are those of the
        configuration's Python parts, too. ``eos_ids`` take the place of the
        configuration's.

        Raises ``ValueError`` for an empty prompt and for one that is longer than the model's
        positions, ``IndexError`` for ids outside the vocabulary; both name the prompt.
        """
        options = self.session_options(config)
        if eos_ids is not None:
            options["eos_ids"] = list(eos_ids)
        session = self.new_session()
        repeated = [prompt for prompt in prompts for _ in range(config.num_return_sequences)]
        for row, prompt in enumerate(repeated):
            try:
                session.add(prompt, row=row, **options)
            except (ValueError, IndexError) as error:
                number = row // config.num_return_sequences
                raise type(error)(f"prompt {number}: {error}") from None
        return PythonSteps(session, config, repeated) if needs_python(config) else session

    def session_options(self, config: GeneratorConfig) -> dict[str, Any]:
        """What a session takes of a configuration with a prompt. Without a seed in the
        configuration, each time with another one. ``ValueError`` for settings that cannot be
        used, ``TypeError`` for those of another type."""
        check_kind(config)
        config.check()
        seed = getattr(config, "seed", None)
        return {
            **config.session_options(self.model.config.embedding.n_pieces),
            "seed": secrets.randbits(63) if seed is None else operator.index(seed),
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
