"""The public base classes: loading, calling, and what users of modules expect to exist."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from .. import _core
from .._core import Device, Tensor
from ..checkpoint import GGUFFile, load_checkpoint
from ..layers.cache import caches_of, pages_of
from ..repository import cached_snapshot
from .config import TransformerConfig
from .output import CausalLMOutputWithCache, LazyStates, ModelOutput, ModelOutputWithCache
from .spec import ParameterNames, TransformerSpec

Self = TypeVar("Self", bound="TransformerModule")


def load_config(folder: Path) -> dict[str, Any]:
    """config.json of a model's folder. ``OSError`` when it is missing or broken."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OSError(f"Cannot load config for the model at `{path}`: {error}") from None
    if not isinstance(config, dict):
        raise OSError(f"Cannot load config for the model at `{path}`: it is not an object")
    return config


class TransformerModule:
    """A model: a configuration and the core's program with its weights."""

    model_types: ClassVar[tuple[str, ...]] = ()
    gguf_architecture: ClassVar[str | None] = None
    has_head: ClassVar[bool] = False

    config: TransformerConfig

    def __init__(self, config: TransformerConfig, core: _core.Model) -> None:
        self.config = config
        self.core = core

    # What an architecture states.

    @classmethod
    def config_from_hf(cls, hf_config: Mapping[str, Any]) -> Any:
        """config.json -> configuration."""
        raise NotImplementedError

    @classmethod
    def spec_from_config(cls, config: Any) -> TransformerSpec:
        """Configuration -> what the core runs."""
        raise NotImplementedError

    @classmethod
    def parameter_names(cls, config: Any) -> ParameterNames:
        """Checkpoint names -> roles."""
        raise NotImplementedError

    # Loading.

    @classmethod
    def is_supported(cls, config: Mapping[str, Any]) -> bool:
        """Whether config.json is of this architecture."""
        return config.get("model_type") in cls.model_types

    @classmethod
    def from_path(
        cls: type[Self],
        path: str | PathLike[str],
        *,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """Loads a folder with config.json and safetensors, or a GGUF file.

        ``dtype`` converts the weights; without it they are used as they lie, mapped. Raises
        ``OSError`` for missing files and ``ValueError`` for a checkpoint that does not fit.
        """
        if quantization_config is not None:
            raise NotImplementedError("quantization while loading is not supported yet")
        if Path(path).suffix == ".gguf":
            return cls._from_gguf(Path(path), device)
        hf_config = load_config(Path(path))
        if not cls.is_supported(hf_config):
            raise ValueError(
                f"{path}: model_type `{hf_config.get('model_type')}` is not one of "
                f"{cls.__name__}'s: " + ", ".join(cls.model_types)
            )
        config = cls.config_from_hf(hf_config)
        if dtype is not None:
            config.dtype = str(Tensor([0.0], dtype=dtype).dtype)
        names = cls.parameter_names(config)
        return cls._build(
            config, cls.spec_from_config(config), names, load_checkpoint(Path(path)), device
        )

    @classmethod
    def from_hf_hub(
        cls: type[Self],
        *,
        name: str,
        revision: str = "main",
        device: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """Loads a model from the local Hugging Face cache."""
        return cls.from_path(
            cached_snapshot(name, revision), device=device, quantization_config=quantization_config
        )

    @classmethod
    def _from_gguf(cls: type[Self], path: Path, device: Any) -> Self:
        file = GGUFFile(path)
        architecture = file.metadata.get("general.architecture")
        if architecture != cls.gguf_architecture or cls.gguf_architecture is None:
            raise ValueError(
                f"{path}: architecture `{architecture}` cannot be loaded by {cls.__name__}"
            )
        config, spec, names = cls.from_gguf_metadata(file)
        return cls._build(config, spec, names, file, device)

    @classmethod
    def from_gguf_metadata(cls, file: GGUFFile) -> tuple[Any, TransformerSpec, ParameterNames]:
        """What an architecture with GGUF files states about them."""
        raise NotImplementedError

    @classmethod
    def _build(
        cls: type[Self],
        config: Any,
        spec: TransformerSpec,
        names: ParameterNames,
        checkpoint: Mapping[str, Tensor],
        device: Any,
    ) -> Self:
        spec.fields["head"] = int(cls.has_head)
        core = _core.Model(spec.core_fields(), device)
        if spec.frequencies is not None:
            core.set_weight("rotary.frequencies", Tensor(spec.frequencies), source="frequencies")
        for name, role, layer in names.roles(iter(checkpoint)):
            if role.startswith("head.") and not cls.has_head:
                continue
            tensor = checkpoint[name]
            if tensor.dtype in ("float32", "float16", "bfloat16") and tensor.dtype != config.dtype:
                tensor = tensor.to(config.dtype)
            core.set_weight(role, tensor, layer=layer, source=name)
        core.finish()
        return cls(config, core)

    # What users of modules expect.

    def eval(self: Self) -> Self:
        """Models are always in evaluation mode."""
        return self

    def train(self: Self, mode: bool = True) -> Self:
        """There is no training mode: ``train(True)`` raises ``NotImplementedError``."""
        if mode:
            raise NotImplementedError("this package runs inference only; there is no training mode")
        return self

    def to(self: Self, device: Any) -> Self:
        """The model itself when it is on the device already."""
        if Device(device) != self.device:
            raise NotImplementedError(
                f"moving a model from {self.device} to {device} is not supported yet"
            )
        return self

    @property
    def device(self) -> Device:
        """Where the weights are."""
        return self.core.device

    @property
    def dtype(self) -> str:
        """Of hidden states and logits."""
        return self.config.dtype

    def __repr__(self) -> str:
        layer = self.config.layer
        return (
            f"{type(self).__name__}({layer.n_hidden_layers} layers, "
            f"width {layer.feedforward.hidden_width}, "
            f"{layer.attention.n_query_heads} heads, {self.config.embedding.n_pieces} pieces, "
            f"{self.dtype}, {self.device})"
        )

    def _run(
        self, piece_ids: Any, input_ids: Any, mask: Any, **options: Any
    ) -> _core.ForwardResult:
        if (piece_ids is None) == (input_ids is None):
            raise TypeError(f"{type(self).__name__} needs piece_ids, which are the input_ids, once")
        ids = input_ids if piece_ids is None else piece_ids
        return self.core.forward(ids, getattr(mask, "bool_mask", mask), **options)


class EncoderModule(TransformerModule):
    """Models without a cache: every piece attends to every other one."""

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


class DecoderModule(TransformerModule):
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


class CausalLMModule(TransformerModule):
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
