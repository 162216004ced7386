"""Which files hold a model's parameters, and one mapping over all of them."""

from __future__ import annotations

import enum
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike

from .._core import Tensor
from ..repository.file import RepositoryFile, check_relative_path
from ..repository.hf_hub import fetch_files
from ..repository.repository import LocalRepository, Repository
from .safetensors import SafeTensorsFile
from .tensor_file import MappedTensors, TensorFile, forget_pages
from .torch_file import TorchFile

Loader = Callable[[Iterable[RepositoryFile]], Iterable[Mapping[str, Tensor]]]


class ModelCheckpointType(enum.Enum):
    """The kind of a checkpoint."""

    PYTORCH_STATE_DICT = 0
    SAFE_TENSORS = 1

    @property
    def pretty_name(self) -> str:
        """How messages name it."""
        return _KINDS[self][0]

    @property
    def file_name(self) -> str:
        """The file of a checkpoint that is not sharded; its index adds ``.index.json``."""
        return _KINDS[self][1]

    @property
    def loader(self) -> Loader:
        """Opens files one after the other and gives the parameters in each."""
        return _KINDS[self][2]


def find_checkpoints(repo: Repository) -> tuple[Sequence[RepositoryFile], ModelCheckpointType]:
    """The files that hold the parameters, and their kind.

    Safetensors come before torch's files, a single file before an index of shards; the first that
    exists decides. Raises ``OSError`` when there is none, or an index or shard is missing or
    broken, and ``ValueError`` when an index names files outside of the repository.
    """
    for kind in (ModelCheckpointType.SAFE_TENSORS, ModelCheckpointType.PYTORCH_STATE_DICT):
        single = repo.file(kind.file_name)
        if single.is_there():
            return [single], kind
        if repo.file(f"{kind.file_name}.index.json").is_there():
            return _shards(repo, kind), kind
    where = repo.pretty_path(f"{kind.file_name}.index.json")
    tried = [name + end for name in _file_names() for end in ("", ".index.json")]
    raise OSError(
        f"Index file for sharded checkpoint type {kind.pretty_name} could not be loaded `{where}`: "
        f"the repository has no checkpoint, which is one of {', '.join(tried)}"
    )


def load_checkpoint(source: Repository | str | PathLike[str]) -> Mapping[str, Tensor]:
    """The parameters of the model in a repository or folder, mapped, each made when it is asked
    for.

    Raises as ``find_checkpoints`` does, and ``ValueError`` for broken files and for a parameter
    that stands in two shards; for a torch checkpoint that asks for more than tensors it is also a
    ``pickle.UnpicklingError``.
    """
    repo = source if isinstance(source, Repository) else LocalRepository(source)
    files, kind = find_checkpoints(repo)
    fetch_files(files)
    shards = list(kind.loader(files))
    return shards[0] if len(shards) == 1 else ShardedCheckpoint(shards)


class ShardedCheckpoint(MappedTensors):
    """The tensors of several files in one mapping. ``ValueError`` for a name that two of them
    hold."""

    def __init__(self, shards: Iterable[Mapping[str, Tensor]]) -> None:
        self._shards = list(shards)
        self._shard_of: dict[str, Mapping[str, Tensor]] = {}
        for shard in self._shards:
            for name in shard:
                if name in self._shard_of:
                    first = self._shard_of[name]
                    raise ValueError(
                        f"Parameter `{name}` stands in two shards: {first} and {shard}"
                    )
                self._shard_of[name] = shard

    def __getitem__(self, name: str) -> Tensor:
        return self._shard_of[name][name]

    def forget_pages(self) -> None:
        for shard in self._shards:
            forget_pages(shard)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shard_of)

    def __len__(self) -> int:
        return len(self._shard_of)

    def __contains__(self, name: object) -> bool:
        return name in self._shard_of


def _shards(repo: Repository, kind: ModelCheckpointType) -> list[RepositoryFile]:
    name = f"{kind.file_name}.index.json"
    where = repo.pretty_path(name)
    try:
        weight_map = repo.json_file(name).get("weight_map")
    except (OSError, ValueError) as error:
        raise OSError(
            f"Index file for sharded checkpoint type {kind.pretty_name} could not be loaded "
            f"`{where}`: {error}"
        ) from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise OSError(
            f"Invalid index file in sharded {kind.pretty_name} checkpoint `{where}`: "
            "`weight_map` must be an object from parameter to file name"
        )
    files = []
    for shard in sorted({check_relative_path(value, where) for value in weight_map.values()}):
        file = repo.file(shard)
        if not file.is_there():
            raise FileNotFoundError(
                f"File for sharded checkpoint type {kind.pretty_name} could not be found at "
                f"{repo.pretty_path(shard)}"
            )
        files.append(file)
    return files


def _loader(kind: type[TensorFile]) -> Loader:
    def load(files: Iterable[RepositoryFile]) -> Iterator[Mapping[str, Tensor]]:
        for file in files:
            yield kind(file.path) if file.path is not None else _spooled(file, kind)

    return load


def _spooled(file: RepositoryFile, kind: type[TensorFile]) -> TensorFile:
    # A mapping outlives the name of its file, so the copy goes when its last tensor does.
    with file.open() as stream, tempfile.NamedTemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        copy.flush()
        return kind(copy.name, source=str(file))


_KINDS: dict[ModelCheckpointType, tuple[str, str, Loader]] = {
    ModelCheckpointType.SAFE_TENSORS: (
        "SafeTensors",
        "model.safetensors",
        _loader(SafeTensorsFile),
    ),
    ModelCheckpointType.PYTORCH_STATE_DICT: (
        "PyTorch StateDict",
        "pytorch_model.bin",
        _loader(TorchFile),
    ),
}


def _file_names() -> list[str]:
    return [kind[1] for kind in _KINDS.values()]
