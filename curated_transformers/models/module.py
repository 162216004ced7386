"""The base classes of models: a configuration, the core's program with its weights, and calls."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from .. import _core
from .._core import Device, Tensor
from ..checkpoint.gguf import GGUFFile
from ..checkpoint.tensor_file import forget_pages
from ..dtype import MODEL_DTYPES, dtype_name
from ..layers.cache import caches_of, pages_of
from ..quantization import Quantizable
from ..quantization.bnb.config import BitsAndBytesConfig
from ..quantization.bnb.impl import FORMATS, check_config, config_for, quantize_matrix
from ..repository import Repository
from .config import TransformerConfig
from .encode import encode_pieces, truncated
from .output import CausalLMOutputWithCache, LazyStates, ModelOutput, ModelOutputWithCache
from .parameters import Parameter, ParameterNames, curated_name
from .sentence_transformers import Pooling, read_sentence_config
from .spec import TransformerSpec

if TYPE_CHECKING:
    from ..tokenizers import TokenizerBase

Self = TypeVar("Self", bound="TransformerModule[Any]")
ConfigT = TypeVar("ConfigT", bound=TransformerConfig)

_MOST_NAMED = 20  # of missing parameters


class TransformerModule(Generic[ConfigT]):
    """A model of a configuration. It has no weights until they are loaded."""

    #: What an architecture calls its parameters.
    parameter_names: ClassVar[ParameterNames]
    has_head: ClassVar[bool] = False

    #: Where the weights come from, for what else lies there.
    repo: Repository | None = None

    #: The GGUF file that they come from; rows may be in another order there.
    _gguf_path: str | None = None

    def __init__(self, config: ConfigT, *, device: Any = None) -> None:
        """Raises ``ValueError`` for a configuration that no model can have."""
        self._config = config
        self._device = Device("cpu" if device is None else device)
        self._core = self._new_core()
        self._checkpoint: Mapping[str, Tensor] | None = None
        self._placed: dict[str, Tensor] = {}  # what a CUDA device computes with, as it is
        self._quantization: BitsAndBytesConfig | None = None
        self._formats: dict[str, tuple[int, int]] = {}
        self._names = self.names_from_config(config)

    @classmethod
    def spec_from_config(cls, config: Any) -> TransformerSpec:
        """Configuration -> what the core runs."""
        raise NotImplementedError

    @classmethod
    def spec_for_roles(cls, config: Any, roles: Set[str]) -> TransformerSpec:
        """The same for a checkpoint with these roles, where the configuration leaves open whether
        it has them."""
        return cls.spec_from_config(config)

    @classmethod
    def names_from_config(cls, config: Any) -> ParameterNames:
        """What a checkpoint of this configuration calls its parameters: ``parameter_names``, unless
        an architecture has several names for one role."""
        return cls.parameter_names

    @property
    def config(self) -> ConfigT:
        """The configuration."""
        return self._config

    @property
    def core(self) -> _core.Model:
        """The core's model."""
        return self._core

    # Weights.

    def load(
        self,
        checkpoint: Mapping[str, Tensor],
        names: ParameterNames,
        quantization: BitsAndBytesConfig | None = None,
    ) -> None:
        """Takes the weights of a checkpoint, converted to the configuration's dtype.

        The checkpoint is kept: what lies mapped in it costs nothing, and ``state_dict`` reads it.
        With ``quantization`` the matrices of linear layers are quantized, one after the other, and
        kept in place of the checkpoint's, unless they are to be finetunable.

        Raises ``ValueError`` that names the parameter which is missing, unknown, of another shape
        or cannot be quantized; the model is then as it was.
        """
        found = list(self._taken(checkpoint, names))
        roles = frozenset(role for _, parameter in found for role in parameter.roles)
        core = self._new_core(roles, quantization)
        spec = self.spec_from_config(self.config)
        per_group = spec.fields.get("layers_per_group", 1)
        to_quantize = self._to_quantize(checkpoint, found) if quantization else frozenset()
        state: dict[str, Tensor] = {}
        placed: dict[str, Tensor] = {}
        formats: dict[str, tuple[int, int]] = {}
        for name, parameter in found:
            layer = -1
            for number in parameter.place:
                layer = number if layer < 0 else layer * per_group + number
            tensor = state[name] = checkpoint[name]
            if quantization and name in to_quantize:
                tensor = quantize_matrix(name, tensor, quantization)
                forget_pages(checkpoint)
                if not quantization.keeps_originals:
                    state[name] = tensor
            if tensor.dtype in FORMATS:
                n, n_bytes = formats.get(tensor.dtype, (0, 0))
                formats[tensor.dtype] = n + 1, n_bytes + tensor.nbytes
            tensor = self._converted(tensor)
            if self._device.type != "cpu" and tensor.ndim == 2 and tensor.dtype in MODEL_DTYPES:
                tensor = placed[name] = tensor.to(self._device)
            for role, part in zip(
                parameter.roles, _row_parts(name, tensor, len(parameter.roles)), strict=True
            ):
                transform = names.transforms.get(role)
                core.set_weight(
                    role, part if transform is None else transform(part), layer=layer, source=name
                )
        missing = [
            names.describe(role, layer, per_group, self.has_head) for role, layer in core.missing()
        ]
        if missing:
            raise ValueError(
                f"Some parameters were not updated/replaced: {', '.join(missing[:_MOST_NAMED])}"
                + (f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else "")
            )
        core.finish()
        if to_quantize or not spec.fields.get("causal") or self._device.type != "cpu":
            forget_pages(checkpoint)  # an encoder has packed the matrices, a device has its own
        if checkpoint is not self._checkpoint:
            self._gguf_path = checkpoint.path if isinstance(checkpoint, GGUFFile) else None
        self._core, self._names, self._placed = core, names, placed
        self._checkpoint = state if to_quantize else checkpoint
        self._quantization = quantization or config_for(formats)
        self._formats = formats

    def _to_quantize(
        self, checkpoint: Mapping[str, Tensor], found: Iterable[tuple[str, Parameter]]
    ) -> Set[str]:
        """Which parameters of a checkpoint are quantized: the matrices of linear layers, but none
        where some are quantized already, as whoever did that left out the others on purpose."""
        excluded = self._unquantized_modules()
        names = {
            name
            for name, parameter in found
            if parameter.is_linear_matrix
            and curated_name(parameter, self.has_head).removesuffix(".weight") not in excluded
        }
        if any(checkpoint[name].dtype in FORMATS for name in names):
            return frozenset()
        return names

    def _unquantized_modules(self) -> Set[str]:
        if not isinstance(self, Quantizable):
            raise ValueError(f"Module of type `{type(self).__name__}` is not quantizable")
        return self.modules_to_not_quantize()

    def quantize(self: Self, config: BitsAndBytesConfig) -> Self:
        """Quantizes the matrices of linear layers; while there are no weights, those that are
        loaded. Returns this model.

        Raises ``ValueError`` when they are quantized already, or a matrix cannot be.
        """
        check_config(config)
        self._unquantized_modules()
        if self._checkpoint is None:
            self._core, self._quantization = self._new_core(quantization=config), config
        elif self._formats:
            raise ValueError(
                f"the linear layers are quantized to {', '.join(self._formats)} already; load the "
                "model again to quantize it in another way"
            )
        else:
            self.load(self._checkpoint, self._names, config)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """All parameters by name, in the model's dtype; without a copy where the checkpoint has
        them in it. Those of a model on a CUDA device are on it, and its matrices shared; quantized
        matrices lie there in another order, and are given as the checkpoint has them, on the host.
        Raises ``RuntimeError`` while there are no weights."""
        return {
            curated_name(parameter, self.has_head): self._parameter(name)
            for name, parameter in self._taken(self.checkpoint, self._names)
        }

    def _parameter(self, name: str) -> Tensor:
        if name in self._placed:
            return self._placed[name]
        tensor = self._converted(self.checkpoint[name])
        return tensor.to(self._device) if tensor.dtype in MODEL_DTYPES else tensor

    @property
    def checkpoint(self) -> Mapping[str, Tensor]:
        """What the weights were loaded from. Raises ``RuntimeError`` while there are none."""
        if self._checkpoint is None:
            raise RuntimeError(
                "the model has no weights yet; load it with from_path or from_hf_hub"
            )
        return self._checkpoint

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes the parameters of a ``state_dict``: tensors, arrays or what becomes one. Memory is
        shared where it can be, that of the model's CUDA device, too."""
        names = self.names_from_config(self.config)
        checkpoint = {}
        for name, value in state_dict.items():
            original = names.from_curated(name, self.has_head)
            if names.find(original) is None:
                raise ValueError(f"the state holds `{name}`, which this model does not have")
            checkpoint[original] = Tensor(value)
        self.load(checkpoint, names, self._quantization)

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Pairs of name and tensor, as in ``state_dict``."""
        yield from self.state_dict().items()

    def parameters(self) -> Iterator[Tensor]:
        """The tensors of ``state_dict``."""
        yield from self.state_dict().values()

    def _taken(
        self, checkpoint: Mapping[str, Tensor], names: ParameterNames
    ) -> Iterator[tuple[str, Parameter]]:
        """What this model takes of a checkpoint: all but a head that it lacks, or that is tied."""
        for name, parameter in names.found(checkpoint):
            tied = self.config.tie_word_embeddings and parameter.roles == ("head.weight",)
            if not (parameter.is_head and (tied or not self.has_head)):
                yield name, parameter

    def _new_core(
        self, roles: Set[str] = frozenset(), quantization: BitsAndBytesConfig | None = None
    ) -> _core.Model:
        spec = self.spec_for_roles(self.config, roles)
        if quantization is not None:
            spec.fields |= quantization.inner.spec_fields
        core = _core.Model(spec.core_fields() | {"head": int(self.has_head)}, self._device)
        for role, vector in spec.vectors.items():
            core.set_weight(role, Tensor(vector), source=role)
        return core

    def _converted(self, tensor: Tensor) -> Tensor:
        if tensor.dtype in MODEL_DTYPES and tensor.dtype != self.dtype:
            return tensor.to(dtype=self.dtype)
        return tensor

    # What users of modules expect.

    def eval(self: Self) -> Self:
        """Models are always in evaluation mode."""
        return self

    def train(self: Self, mode: bool = True) -> Self:
        """There is no training mode: ``train(True)`` raises ``NotImplementedError``."""
        if mode:
            raise NotImplementedError("this package runs inference only; there is no training mode")
        return self

    @property
    def training(self) -> bool:
        """Always false."""
        return False

    def to(self: Self, *args: Any, device: Any = None, dtype: Any = None) -> Self:
        """Moves and converts this model, and returns it: ``to("cpu")``, ``to(torch.float16)``,
        ``to(device, dtype)``. Weights are read from the checkpoint again; matrices that are
        quantized stay as they are.

        Raises ``NotImplementedError`` for a device that the core cannot run on.
        """
        for argument in args:
            if _is_dtype(argument):
                dtype = argument
            else:
                device = argument
        target = self._device if device is None else Device(device)
        wanted = self.dtype if dtype is None else dtype_name(dtype, MODEL_DTYPES)
        if target != self._device or wanted != self.dtype:
            before = self._config, self._device
            self._config = copy.deepcopy(self._config)  # it may be shared
            self._config.dtype, self._device = wanted, target
            try:
                if self._checkpoint is None:
                    self._core = self._new_core(quantization=self._quantization)
                else:
                    self.load(self._checkpoint, self._names, self._quantization)
            except BaseException:
                self._config, self._device = before
                raise
        return self

    @property
    def device(self) -> Device:
        """Where the weights are."""
        return self._device

    @property
    def dtype(self) -> str:
        """Of weights, hidden states and logits."""
        return self.config.dtype

    def __copy__(self: Self) -> Self:
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        """Weights are replaced, not changed, so that copies share them."""
        other = copy.copy(self)
        other._config = copy.deepcopy(self._config, memo)
        return other

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled; load it with from_path where it is needed "
            "(processes share the memory of a mapped checkpoint), or save it with save(folder)"
        )

    def __repr__(self) -> str:
        layer = self.config.layer
        return (
            f"{type(self).__name__}({layer.n_hidden_layers} layers, "
            f"width {layer.feedforward.hidden_width}, "
            f"{layer.attention.n_query_heads} heads, {self.config.embedding.n_pieces} pieces, "
            f"{self.dtype}, {self._formats_text()}{self.device})"
        )

    def _formats_text(self) -> str:
        return "".join(
            f"{n} matrices in {name} ({n_bytes / 1e6:.1f} MB), "
            for name, (n, n_bytes) in sorted(self._formats.items())
        )

    def _run(
        self, piece_ids: Any, input_ids: Any, mask: Any, **options: Any
    ) -> _core.ForwardResult:
        if (piece_ids is None) == (input_ids is None):
            raise TypeError(f"{type(self).__name__} needs piece_ids, which are the input_ids, once")
        ids = input_ids if piece_ids is None else piece_ids
        return self.core.forward(ids, getattr(mask, "bool_mask", mask), **options)


def _row_parts(name: str, tensor: Tensor, n: int) -> list[Tensor]:
    """The rows of a matrix in ``n`` equal parts."""
    if n == 1:
        return [tensor]
    rows = tensor.shape[0]
    if rows % n:
        raise ValueError(f"`{name}` holds {n} matrices in {rows} rows, which do not divide")
    size = rows // n
    return [tensor[i * size : (i + 1) * size] for i in range(n)]


def _is_dtype(argument: Any) -> bool:
    try:
        dtype_name(argument)
    except TypeError:
        return False
    except ValueError:  # a name of anything, or an object of another dtype
        return not isinstance(argument, str)
    return True


class EncoderModule(TransformerModule[ConfigT]):
    """Models without a cache: every piece attends to every other one."""

    _tokenizer: TokenizerBase | None = None

    @property
    def max_seq_len(self) -> int | None:
        """The most pieces that the model was made for, where the configuration says."""
        return getattr(self.config, "model_max_length", None)

    def __call__(
        self,
        piece_ids: Any = None,
        attention_mask: Any = None,
        *,
        positions: Any = None,
        type_ids: Any = None,
        input_ids: Any = None,
    ) -> ModelOutput:
        """Hidden states of ``piece_ids`` ``[batch, seq]`` (also called ``input_ids``).

        Without a mask every piece is attended to. Raises ``IndexError`` for ids outside the tables
        and ``ValueError`` for shapes that do not fit.
        """
        result = self._run(
            piece_ids, input_ids, attention_mask, positions=positions, types=type_ids
        )
        return ModelOutput(LazyStates(result))

    forward = __call__

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        pooling: Pooling | None = None,
        normalize: bool = True,
        batch_size: int | None = None,
        max_batch_tokens: int = 16384,
        max_length: int | None = None,
        progress: bool = False,
        tokenizer: TokenizerBase | None = None,
    ) -> npt.NDArray[np.float32]:
        """One vector for each text, ``[texts, width]`` in float32; for a single string ``[width]``.

        ``pooling`` is the mean of the last hidden states, the first of them ("cls") or the largest
        of each feature. Without it the repository of the model decides where sentence-transformers
        made it, else it is the mean. ``normalize`` gives vectors the length 1. Texts are cut to
        ``max_length`` pieces, by default the most that repository or model allow. They are
        tokenized by ``tokenizer``, by default the one of the model's repository, and run the
        longest first, at most ``batch_size`` texts and about ``max_batch_tokens`` pieces at a time.
        ``progress`` shows a bar.

        Raises ``ValueError`` for bad options and for pooling that is not supported, and
        ``RuntimeError`` when there is no repository to take the tokenizer from.
        """
        if pooling not in (None, "mean", "cls", "max"):
            raise ValueError(f"pooling must be mean, cls or max, was: {pooling!r}")
        if any(n is not None and n < 1 for n in (batch_size, max_batch_tokens, max_length)):
            raise ValueError("batch_size, max_batch_tokens and max_length must be at least 1")
        stated = read_sentence_config(self.repo, pooling)
        single = isinstance(texts, str)
        inputs = [texts] if isinstance(texts, str) else list(texts)
        for text in inputs:
            if not isinstance(text, str):
                raise ValueError(f"Non-string inputs: {type(text).__name__}")
        prepared = [stated.prompt + text for text in inputs]
        if stated.lowercase:
            prepared = [text.lower() for text in prepared]
        tokenize = tokenizer or self._own_tokenizer()
        longest = max_length or stated.max_length or self.max_seq_len
        empty, *pieces = tokenize(["", *prepared]).ids
        vectors = encode_pieces(
            self._run_pooled,
            truncated(pieces, empty, longest),
            self.config.layer.feedforward.hidden_width,
            pooling=pooling or stated.pooling or "mean",
            normalize=normalize,
            batch_size=batch_size,
            max_batch_tokens=max_batch_tokens,
            progress=progress,
        )
        return vectors[0] if single else vectors

    def _run_pooled(
        self, ids: npt.NDArray[np.int32], mask: npt.NDArray[np.bool_], pooling: Pooling
    ) -> npt.NDArray[np.float32]:
        return self.core.forward(ids, mask, keep="last").pooled(0, pooling).numpy()

    def _own_tokenizer(self) -> TokenizerBase:
        if self._tokenizer is None:
            if self.repo is None:
                raise RuntimeError("the model has no repository with a tokenizer; pass `tokenizer`")
            from ..tokenizers.auto_tokenizer import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_repo(self.repo)
        return self._tokenizer


class DecoderModule(TransformerModule[ConfigT]):
    """Causal models: a piece attends to itself and those before it."""

    def __call__(
        self,
        piece_ids: Any = None,
        attention_mask: Any = None,
        *,
        cache: Any = None,
        positions: Any = None,
        store_cache: bool = False,
        input_ids: Any = None,
    ) -> ModelOutputWithCache:
        """Hidden states; with ``cache`` the mask covers cached and new pieces."""
        result = self._run(
            piece_ids,
            input_ids,
            attention_mask,
            positions=positions,
            cache=pages_of(cache, self.core, attention_mask),
            store_cache=store_cache,
        )
        pages = result.cache
        return ModelOutputWithCache(LazyStates(result), caches_of(pages) if pages else None)

    forward = __call__


class CausalLMModule(TransformerModule[ConfigT]):
    """Decoders with an output head."""

    has_head = True

    def __call__(
        self,
        piece_ids: Any = None,
        attention_mask: Any = None,
        cache: Any = None,
        positions: Any = None,
        store_cache: bool = False,
        *,
        input_ids: Any = None,
    ) -> CausalLMOutputWithCache:
        """Hidden states and the logits of every piece."""
        result = self._run(
            piece_ids,
            input_ids,
            attention_mask,
            positions=positions,
            cache=pages_of(cache, self.core, attention_mask),
            store_cache=store_cache,
            logits=True,
        )
        pages = result.cache
        return CausalLMOutputWithCache(
            LazyStates(result), caches_of(pages) if pages else None, result.logits()
        )

    forward = __call__
