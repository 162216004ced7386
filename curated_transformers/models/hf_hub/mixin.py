"""Loading: from a repository's config.json and checkpoint to a model."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Set
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from ..._core import Tensor
from ...checkpoint import GGUFFile, is_gguf, load_checkpoint
from ...checkpoint.bitsandbytes import BitsAndBytesCheckpoint, saved_parts, with_scales
from ...checkpoint.writer import FILES as CHECKPOINT_FILES
from ...checkpoint.writer import Planned, byte_count, write_checkpoint, write_json
from ...dtype import MODEL_DTYPES, dtype_name
from ...quantization.bnb.config import BitsAndBytesConfig, Config4Bit
from ...quantization.bnb.config_json import check_method, read_quantization, write_quantization
from ...quantization.bnb.impl import FORMATS, check_config
from ...repository import (
    FsspecRepository,
    HfHubRepository,
    LocalRepository,
    ModelRepository,
    Repository,
    fetch_files,
)
from ...repository.atomic import AtomicFiles
from ...repository.loading import LoadsItself
from ..module import ConfigT, EncoderModule, TransformerModule
from ..parameters import ParameterNames, curated_name
from .conversion import HFConfig, HFKey, flag, nested

Self = TypeVar("Self", bound="FromHF[Any]")

#: What config_to_hf says that its configuration was written for.
_TRANSFORMERS_VERSION = "4.33.0"

_TIED = HFKey("tie_word_embeddings", "tie_word_embeddings", flag, None)


class FromHF(TransformerModule[ConfigT], LoadsItself):
    """What an architecture states about Hugging Face repositories, and loading by it.

    ``hf_keys`` are the keys of config.json and the arguments of ``config_class`` that they become;
    ``hf_refused`` the keys that change the result, with the values that are honoured, the default
    first; ``hf_class`` the stem of transformers' class names.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    hf_label: ClassVar[str]
    hf_class: ClassVar[str]
    config_class: ClassVar[Any]
    default_dtype: ClassVar[str] = "float32"
    hf_keys: ClassVar[tuple[HFKey, ...]] = ()
    hf_refused: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    gguf_architecture: ClassVar[str | None] = None

    #: What config.json said about special pieces, which is nothing to the model: saved again.
    _special_pieces: Mapping[str, Any] = MappingProxyType({})

    # Configurations.

    @classmethod
    def is_supported(cls, config: Mapping[str, Any]) -> bool:
        """Whether config.json is of this architecture: ``model_type``, or ``architectures``."""
        model_type = config.get("model_type")
        if model_type is not None:
            return model_type in cls.model_types
        names = config.get("architectures")
        pattern = re.compile(rf"{cls.hf_class}(Model|LMHeadModel|For\w+)")
        return isinstance(names, list) and any(
            isinstance(name, str) and pattern.fullmatch(name) for name in names
        )

    @classmethod
    def config_from_hf(cls, hf_config: Mapping[str, Any]) -> Any:
        """config.json -> configuration.

        Raises ``ValueError`` for missing keys, values of the wrong kind, and for options that
        change the result and are not supported.
        """
        hf = HFConfig(hf_config, cls.hf_label)
        if "quantization_config" in hf:
            check_method(hf["quantization_config"])
        for key, allowed in cls.hf_refused.items():
            hf.refuse(key, *allowed)
        arguments = hf.arguments(cls.hf_keys) | {"dtype": hf.dtype(cls.default_dtype)}
        config = cls.config_class(**(arguments | cls.arguments_from_hf(hf)))
        if _TIED.name in hf:
            config.tie_word_embeddings = hf.read(_TIED)
        return config

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        """Arguments of the configuration that need more than one key; they win over the table's."""
        return {}

    @classmethod
    def config_to_hf(cls, curated_config: Any) -> dict[str, Any]:
        """Configuration -> config.json, from which ``config_from_hf`` makes an equal one."""
        values = {key.name: key.value_of(curated_config) for key in cls.hf_keys}
        values |= cls.values_to_hf(curated_config)
        values[_TIED.name] = curated_config.tie_word_embeddings
        nullable = {key.name for key in cls.hf_keys if key.nullable}
        given = {k: value for k, value in values.items() if value is not None or k in nullable}
        return {
            "architectures": [cls.hf_class + ("ForCausalLM" if cls.has_head else "Model")],
            "model_type": cls.model_types[0],
            **nested(given),
            "torch_dtype": curated_config.dtype,
            "transformers_version": _TRANSFORMERS_VERSION,
        }

    @classmethod
    def values_to_hf(cls, config: Any) -> dict[str, Any]:
        """The inverse of ``arguments_from_hf``."""
        return {}

    # Parameter names.

    @classmethod
    def state_dict_from_hf(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters under this package's names; those that it does not know keep theirs."""
        names = cls.parameter_names
        return {names.to_curated(name, cls.has_head): value for name, value in params.items()}

    @classmethod
    def state_dict_to_hf(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters under the names of Hugging Face checkpoints."""
        names = cls.parameter_names
        return {names.from_curated(name, cls.has_head): value for name, value in params.items()}

    # Loading.

    @classmethod
    def from_hf_config(
        cls: type[Self], *, hf_config: Mapping[str, Any], device: Any = None
    ) -> Self:
        """A model of a config.json's shape, without weights yet."""
        return cls(cls.config_from_hf(hf_config), device=device)

    @classmethod
    def from_repo(
        cls: type[Self],
        *,
        repo: Repository,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """Loads the model in a repository.

        ``dtype`` converts the weights; without it they keep the type that config.json names, mapped
        from the file where they have it already. Raises ``OSError`` for missing files and
        ``ValueError`` for a configuration or a checkpoint that does not fit.
        """
        files = ModelRepository(repo)
        hf_config = files.model_config()
        if not cls.is_supported(hf_config):
            raise ValueError(
                f"{files.pretty_path()}: model_type `{hf_config.get('model_type')}` is not one of "
                f"{cls.__name__}'s: " + ", ".join(cls.model_types)
            )
        config = cls.config_from_hf(hf_config)
        if dtype is not None:
            config.dtype = dtype_name(dtype, MODEL_DTYPES)
        model = cls(config, device=device)
        model.from_repo_(repo=repo, quantization_config=quantization_config)
        model._special_pieces = {
            key: value for key, value in hf_config.items() if key.endswith("_token_id")
        }
        return model

    @classmethod
    def from_path(
        cls: type[Self],
        path: str | PathLike[str],
        *,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """Loads a folder as ``from_repo`` does, or a GGUF file."""
        if is_gguf(path):
            return cls._from_gguf(GGUFFile(path), device, dtype, quantization_config)
        return cls.from_repo(
            repo=LocalRepository(path),
            device=device,
            dtype=dtype,
            quantization_config=quantization_config,
        )

    @classmethod
    def from_hf_hub_to_cache(cls, *, name: str, revision: str = "main") -> None:
        """Makes sure that the local cache holds configuration and checkpoint."""
        hub_model_to_cache(name, revision)

    def from_repo_(
        self: Self, *, repo: Repository, device: Any = None, quantization_config: Any = None
    ) -> Self:
        """Loads the checkpoint of a repository into this model, whose configuration stays."""
        if quantization_config is not None:
            check_config(quantization_config)
        if device is not None:
            self.to(device)
        checkpoint = with_scales(load_checkpoint(repo))
        if isinstance(checkpoint, BitsAndBytesCheckpoint):
            quantization_config = _stated(repo, checkpoint, quantization_config)
        self.load(
            checkpoint,
            self.names_from_config(self.config),
            quantization_config or self._quantization,
        )
        self.repo = repo
        return self

    def from_fsspec_(
        self: Self,
        *,
        fs: Any,
        model_path: str,
        fsspec_args: Any = None,
        device: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """``from_repo_`` through an fsspec filesystem."""
        repo = FsspecRepository(fs, model_path, fsspec_args)
        return self.from_repo_(repo=repo, device=device, quantization_config=quantization_config)

    def from_hf_hub_(
        self: Self,
        *,
        name: str,
        revision: str = "main",
        device: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """``from_repo_`` from the Hugging Face Hub."""
        repo = HfHubRepository(name, revision=revision)
        return self.from_repo_(repo=repo, device=device, quantization_config=quantization_config)

    # Saving.

    def save(self, path: str | PathLike[str], *, max_shard_size: int | str = "5GB") -> None:
        """Writes config.json and the weights as safetensors, for ``from_path`` and for
        transformers.

        The weights have the model's dtype; ``to`` changes it. Quantized matrices are saved as
        bitsandbytes does, so that transformers computes with them. Files larger than
        ``max_shard_size`` (bytes, or a text like "5GB") become shards with an index. Each file is
        replaced as a whole, and those of an earlier checkpoint in the folder are removed, so that a
        model may be saved to where it came from. What this package does not run, such as a
        tokenizer or heads for pretraining, is not part of the model and is not saved.

        Raises ``RuntimeError`` while there are no weights and ``NotImplementedError`` for a model
        from a GGUF file, whose weights are of another form.
        """
        size = byte_count(max_shard_size)
        checkpoint = self.checkpoint
        if self._gguf_path is not None:
            raise NotImplementedError(
                f"{self._gguf_path}: a model from a GGUF file cannot be saved as safetensors"
            )
        sources = self._names_to_save(checkpoint)
        parts: dict[str, Tensor] = {}  # of quantized matrices, where they lie
        tensors = []
        for name, source in sources.items():
            if checkpoint[source].dtype in FORMATS:
                own = saved_parts(name, checkpoint[source])
                tensors += [Planned(key, part.dtype, part.shape) for key, part in own.items()]
                parts |= own
            else:
                tensors.append(Planned(name, self.dtype, checkpoint[source].shape))

        def value_of(name: str) -> Tensor:
            return parts[name] if name in parts else self._converted(checkpoint[sources[name]])

        config = {**self._special_pieces, **self.config_to_hf(self.config)}
        if parts and self._quantization is not None:
            config["quantization_config"] = write_quantization(
                self._quantization, self._unquantized_layers(sources.keys(), parts.keys())
            )
        with AtomicFiles(Path(path), replaces=CHECKPOINT_FILES) as files:
            write_checkpoint(files, tensors, value_of, size)
            write_json(files, "config.json", config)

    def _unquantized_layers(self, names: Set[str], quantized: Set[str]) -> list[str] | None:
        """The linear layers, by their names in Hugging Face checkpoints, that are not quantized;
        None where that is an output head, if there is any, and nothing else: as transformers has
        it. It makes a pooler on top of an encoder, of which nothing is saved."""
        found = self.names_from_config(self.config).found(names)
        linear = {name: parameter for name, parameter in found if parameter.is_linear_matrix}
        unquantized = linear.keys() - quantized
        if isinstance(self, EncoderModule):
            unquantized |= {"pooler.weight"}
        elif unquantized == {name for name, parameter in linear.items() if parameter.is_head}:
            return None
        return sorted(name.removesuffix(".weight") for name in unquantized)

    def _names_to_save(self, checkpoint: Mapping[str, Any]) -> dict[str, str]:
        """The name of each parameter in Hugging Face checkpoints -> the one in ours."""
        names = self.names_from_config(self.config)
        return {
            names.from_curated(curated_name(parameter, self.has_head), self.has_head): name
            for name, parameter in self._taken(checkpoint, self._names)
        }

    @classmethod
    def _from_gguf(
        cls: type[Self], file: GGUFFile, device: Any, dtype: Any, quantization_config: Any
    ) -> Self:
        if quantization_config is not None:
            check_config(quantization_config)
        architecture = file.metadata.get("general.architecture")
        if architecture != cls.gguf_architecture or cls.gguf_architecture is None:
            raise ValueError(
                f"{file.path}: architecture `{architecture}` cannot be loaded by {cls.__name__}"
            )
        config, names = cls.from_gguf_metadata(file)
        if dtype is not None:
            config.dtype = dtype_name(dtype, MODEL_DTYPES)
        model = cls(config, device=device)
        model.load(file, names, quantization_config)
        return model

    @classmethod
    def from_gguf_metadata(cls, file: GGUFFile) -> tuple[Any, ParameterNames]:
        """What an architecture with GGUF files states about them: the configuration, and what the
        file calls the parameters."""
        raise NotImplementedError


def hub_model_to_cache(name: str, revision: str) -> None:
    """Downloads the configuration and the checkpoint of a model."""
    files = ModelRepository(HfHubRepository(name, revision=revision))
    files.model_config()
    fetch_files(files.model_checkpoints()[0])


def _stated(
    repo: Repository, checkpoint: BitsAndBytesCheckpoint, asked: BitsAndBytesConfig | None
) -> BitsAndBytesConfig | None:
    """How to compute with a checkpoint that is quantized: as its config.json says. Of what was
    asked for, only what no config.json says counts."""
    stated = ModelRepository(repo).model_config().get("quantization_config")
    found = read_quantization(stated, checkpoint.formats)
    if asked is None or found is None:
        return found
    if isinstance(asked.inner, Config4Bit) and isinstance(found.inner, Config4Bit):
        found = replace(
            found, inner=replace(found.inner, int8_activations=asked.inner.int8_activations)
        )
    if asked != found:
        warnings.warn(
            f"{repo.pretty_path()} is quantized already: its {found} counts, not the "
            f"quantization_config that was passed, {asked}",
            stacklevel=5,
        )
    return found
