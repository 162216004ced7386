"""What models return. Hidden states are padded when they are read, and kept then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from .._core import ForwardResult, Tensor
from ..layers.cache import KeyValueCache


class LazyStates(Sequence[Tensor]):
    """The hidden states of a call, each made when it is first read."""

    def __init__(self, result: ForwardResult) -> None:
        self._result = result
        self._read: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self._result.n_hidden

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"output {index} is outside the {len(self)} outputs")
        if position not in self._read:
            self._read[position] = self._result.hidden(position)
        return self._read[position]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __reduce__(self) -> tuple[type[list[Tensor]], tuple[list[Tensor]]]:
        return list, (list(self),)

    def __repr__(self) -> str:
        return f"<{len(self)} hidden states>"


@dataclass
class ModelOutput:
    """The embedding layer's output, then each layer's, ``[batch, seq, width]``; zeros at masked
    places."""

    all_outputs: Sequence[Tensor]

    @property
    def embedding_layer(self) -> Tensor:
        """The output of the embedding layer, after its norm and projection."""
        return self.all_outputs[0]

    @property
    def last_hidden_layer_state(self) -> Tensor:
        """The output of the last layer."""
        return self.all_outputs[-1]

    @property
    def all_hidden_layer_states(self) -> list[Tensor]:
        """The outputs of all layers, without the embedding layer's."""
        return list(self.all_outputs[1:])

    def hidden_layer_states(self, idx: int) -> Tensor:
        """The output of layer ``idx``, counted from 0. ``ValueError`` outside."""
        n_layers = len(self.all_outputs) - 1
        if not 0 <= idx < n_layers:
            raise ValueError(
                f"Attempting to select hidden state with invalid layer index ({idx}). "
                f"Expected range: 0 <= idx < {n_layers}"
            )
        return self.all_outputs[idx + 1]


@dataclass
class ModelOutputWithCache(ModelOutput):
    """Also the keys and values of all pieces so far, one entry a layer, when ``store_cache`` was
    set."""

    cache: list[KeyValueCache] | None = None


@dataclass
class CausalLMOutputWithCache(ModelOutputWithCache):
    """Also the logits, ``[batch, seq, pieces]``."""

    logits: Tensor | None = None
