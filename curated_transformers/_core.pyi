"""The C core. Public names are re-exported elsewhere; this module is not part of the documented
API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, final

import numpy as np
import numpy.typing as npt
from typing_extensions import CapsuleType

DTypeName = Literal[
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int8",
    "uint8",
    "bool",
    "q8_0",
    "q4_0",
    "q4_1",
    "q5_0",
    "q5_1",
    "q4_k",
    "q5_k",
    "q6_k",
    "llm_int8",
    "fp4",
    "nf4",
]

#: Field name -> default of the specification that ``Model`` takes.
SPEC_DEFAULTS: Final[Mapping[str, int | float]]
#: Roles of weights of the whole model, and of one layer.
MODEL_ROLES: Final[tuple[str, ...]]
LAYER_ROLES: Final[tuple[str, ...]]
#: Enumerators by the names that specifications use: "gelu" -> int and so on.
ACTIVATIONS: Final[Mapping[str, int]]  # relu gelu gelu_tanh silu
NORMS: Final[Mapping[str, int]]  # layer rms
QKV_ORDERS: Final[Mapping[str, int]]  # concatenated grouped
QK_NORMS: Final[Mapping[str, int]]  # none head all
POSITION_RULES: Final[Mapping[str, int]]  # column skip_padding
DTYPES: Final[Mapping[str, int]]  # dtype name -> value of the spec's ``dtype``
#: dtype name -> (values per block, bytes per block)
DTYPE_BLOCKS: Final[Mapping[str, tuple[int, int]]]

def isa() -> str:
    """The instruction set level in use: "portable", "avx2", "avx512" or "neon"."""

def has_onednn() -> bool: ...
def quantize(matrix: Any, dtype: Any, *, nested: bool = False) -> Tensor:
    """A float matrix in "llm_int8", "fp4" or "nf4", from its values' rounding to float16.
    ``nested`` quantizes the scales of 4-bit blocks, too. Raises ``ValueError`` for values that are
    not a number and for rows that do not fill whole bytes."""

def scaled_tensor(
    codes: Any,
    dtype: Any,
    shape: Sequence[int],
    absmax: Any,
    block: int,
    *,
    nested_absmax: Any = None,
    nested_map: Any = None,
    nested_offset: float = 0.0,
    origin: Any = "float16",
) -> Tensor:
    """A matrix in "llm_int8", "fp4" or "nf4" from its parts: codes (int8, or two in each byte of
    uint8) and a scale for each ``block`` values: float32, or uint8 where they are nested.
    ``origin`` is the type that was quantized. Raises ``ValueError`` for parts that do not fit each
    other."""

def get_num_threads() -> int: ...
def set_num_threads(n: int, /) -> None: ...

@final
class Device:
    """A device: ``Device("cpu")``, ``Device("cuda", 1)``, ``Device("cuda:1")``, or from anything
    with ``type`` and ``index`` (a ``torch.device``). Compares equal to strings and to those."""

    def __init__(self, type: Any, index: int | None = None) -> None: ...
    @property
    def type(self) -> str: ...
    @property
    def index(self) -> int | None: ...  # None for the CPU
    def is_available(self) -> bool: ...
    def empty_cache(self) -> None:
        """Gives memory that was freed and is kept for reuse back to the system: for other programs,
        and other libraries in this one. What models keep for their next call stays. Raises
        ``NotImplementedError`` or ``ValueError`` for a device that is not there."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Tensor:
    """An n-dimensional array: a view of memory that is shared, not copied. Immutable shape."""

    def __init__(self, data: Any, dtype: Any = None) -> None:
        """From a tensor, NumPy array, anything with ``__dlpack__`` or the buffer protocol (shared
        when the dtype allows, on a CUDA device, too), or nested lists of numbers (copied)."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def dtype(self) -> DTypeName: ...
    @property
    def device(self) -> Device: ...
    @property
    def codes(self) -> Tensor | None:
        """What lies in memory of a matrix in "llm_int8" (int8, its shape), "fp4" or "nf4" (uint8,
        flat); None for other tensors."""

    @property
    def scales(self) -> dict[str, Any] | None:
        """The other arguments of ``scaled_tensor``, and ``first_value``: what the values of this
        tensor, which may be a slice, begin with as its scales count. None for other tensors."""

    def dim(self) -> int: ...
    def numel(self) -> int: ...
    def numpy(self) -> npt.NDArray[Any]:
        """Shares memory, except bfloat16 and quantized formats, which are converted to float32, and
        what a CUDA device holds, which is copied."""

    def tolist(self) -> Any: ...
    def item(self) -> int | float | bool: ...
    def __int__(self) -> int: ...
    def __float__(self) -> float: ...
    def __index__(self) -> int: ...
    def __bool__(self) -> bool:
        """Of the only element, as ``__int__`` and the others. ``ValueError`` where there are
        several."""

    def to(self, *args: Any, dtype: Any = None, device: Any = None, copy: bool = False) -> Tensor:
        """To a device, an element type or both: ``to("cpu")``, ``to(torch.float16)``,
        ``to(device="cpu", dtype="bfloat16")``."""

    def reshape(self, *shape: int | Sequence[int]) -> Tensor: ...
    def contiguous(self) -> Tensor: ...
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> CapsuleType:
        """``stream`` is the consumer's on a CUDA device, where it waits for what this package does
        there: None or 1 is the default stream, 2 that of the thread, -1 none (nothing waits), else
        a handle. ``dl_device=(1, 0)`` copies to the host. Raises ``BufferError`` for what cannot be
        exported so, and ``ValueError`` for other streams."""

    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __getitem__(self, key: Any, /) -> Tensor: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Tensor]: ...

@final
class MappedFile:
    """A whole file, mapped read-only. If somebody truncates it while it is mapped, reading behind
    its new end kills the process (SIGBUS)."""

    def __init__(self, path: Any) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def path(self) -> str: ...
    def tensor(self, dtype: str, shape: Sequence[int], offset: int) -> Tensor:
        """A view of the file's bytes from ``offset`` on. ``ValueError`` unless it lies inside.
        Where ``offset`` is no multiple of the element's size the values are copied."""

    def forget_pages(self) -> None:
        """Takes what was read out of this process's memory until it is read again."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Model:
    """A specification and its weights."""

    def __init__(self, spec: Mapping[str, int | float], device: Any = None) -> None: ...
    @property
    def device(self) -> Device: ...
    def set_weight(
        self, role: str, tensor: Tensor, *, layer: int = -1, source: str = ""
    ) -> None: ...
    def missing(self) -> list[tuple[str, int]]:
        """Pairs of role and layer (-1: of the whole model) of the weights that were not set yet."""

    def finish(self) -> None: ...
    def forward(
        self,
        ids: Any,
        mask: Any = None,
        *,
        positions: Any = None,
        types: Any = None,
        cache: Cache | None = None,
        store_cache: bool = False,
        logits: bool = False,
        keep: Literal["all", "last", "none"] = "all",
    ) -> ForwardResult: ...

@final
class ForwardResult:
    """What a call computed, packed; tensors are padded when they are read."""

    @property
    def n_hidden(self) -> int: ...
    def hidden(self, index: int, /) -> Tensor:
        """``[batch, seq, width]`` in the model's dtype, zeros at masked places."""

    def pooled(self, index: int, kind: Literal["mean", "cls", "max"]) -> Tensor:
        """``[batch, width]`` in float32: the mean, the first or, feature by feature, the largest of
        a sequence's real pieces in a hidden state; zeros for a sequence without any. With a 4-D
        mask every piece counts."""

    def logits(self) -> Tensor | None: ...
    @property
    def cache(self) -> Cache | None: ...

@final
class Cache:
    """A snapshot of a batch's keys and values. Passing it to ``forward`` leaves it as it is.

    Calls return it. Made from arrays it copies them into pages of ``model``, in its cache's dtype:
    one ``[batch, kv_heads, columns, head_width]`` of keys and one of values for each layer;
    ``mask`` ``[batch, columns]`` is false where a column holds no position."""

    def __init__(
        self, model: Model, keys: Sequence[Any], values: Sequence[Any], mask: Any = None
    ) -> None: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def n_sequences(self) -> int: ...
    @property
    def n_columns(self) -> int: ...
    def key(self, layer: int, /) -> Tensor: ...
    def value(self, layer: int, /) -> Tensor: ...
    def select(self, rows: Sequence[int] | npt.NDArray[np.intp], /) -> Cache: ...

#: Why a sequence ended: the third member of an event.
FINISH_NONE: Final = 0
FINISH_EOS: Final = 1
FINISH_LENGTH: Final = 2

@final
class Event(tuple[int, int, int]):
    """What happened to one sequence in one step: ``(sequence, piece or -1, finish)``, and what its
    request asked for beside that. Made from all five members."""

    def __new__(cls, members: Sequence[Any], /) -> Event: ...
    @property
    def sequence(self) -> int: ...
    @property
    def piece(self) -> int: ...
    @property
    def finish(self) -> int: ...
    @property
    def logprob(self) -> float | None: ...
    @property
    def top(self) -> tuple[tuple[int, float], ...]: ...

#: Called with a sequence's number, its ids so far and the logits of its next piece, which it may
#: change; both one-dimensional arrays are its own.
LogitsHook = Callable[[int, npt.NDArray[np.int32], npt.NDArray[np.float32]], object]

@final
class Session:
    """The generation loop over one model. Belongs to one thread at a time.

    A step computes up to ``max_batch_tokens`` pieces: one of each sequence that decodes, and of
    prompts as many as there is room for. ``max_slots`` sequences run at once, as far as the pages
    of ``max_cache_tokens`` positions go. 0: by the memory of the machine. None of them changes a
    result.
    """

    def __init__(
        self,
        model: Model,
        *,
        max_slots: int = 0,
        max_batch_tokens: int = 0,
        max_cache_tokens: int = 0,
    ) -> None: ...
    def add(
        self,
        ids: Any,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        seed: int = 0,
        row: int = 0,
        banned: Any = (),
        bad_words: Any = (),
        eos_ids: Any = (),
        max_pieces: int = 0,
        logprobs: int = -1,
    ) -> int:
        """Queues a prompt (one-dimensional ids); ``temperature`` 0 is greedy, a penalty of 0 none.
        ``bad_words`` are written one behind the other, each as its length and its pieces, at least
        two. ``logprobs`` of 0 asks for that of each chosen piece, n more for those of the n most
        probable ones. Returns the prompt's number."""

    def run(self, max_steps: int = -1, hook: LogitsHook | None = None, /) -> list[Event]:
        """Runs steps until everything is done, or ``max_steps`` of them. Returns the events in
        order. Signals are looked at between steps and layers. What came before an exception comes
        with the next call. What ``hook`` raises ends the sequences of the step."""

    def cancel(self, sequence: int, /) -> None: ...
    @property
    def is_done(self) -> bool: ...

#: What ``TransferPool.run`` gives: number, HTTP status (0 when no answer came), libcurl's code (0
#: when the transfer went well), why we refused it ("", "file", "range", "length", "header",
#: "memory"), errno of our own file, a message, the header, the body that did not go to a file,
#: where the file ends now.
Answer = tuple[int, int, int, str, int, bytes, bytes, bytes, int]

@final
class TransferPool:
    """HTTP transfers over connections that are kept. Belongs to one thread at a time, and to the
    process that made it. ``OSError`` when the system has no libcurl."""

    def __init__(self) -> None: ...
    def add(
        self,
        method: str,
        url: str,
        headers: tuple[str, ...],
        *,
        body: bytes | None = None,
        upload: tuple[int, int, int] | None = None,
        output: tuple[int, int, int] | None = None,
        fresh_connection: bool = False,
        connect_timeout: float = 0,
        total_timeout: float = 0,
        idle_timeout: float = 0,
        ca_file: str | None = None,
    ) -> int:
        """Starts a request and returns its number; ``run`` lets it advance. ``upload`` is a
        descriptor, an offset and a number of bytes to send; ``output`` a descriptor, how much of
        the file is there, and how long it may become (-1: any). Both stay open until the transfer
        is done. On a ``fresh_connection`` a request is sent once: on a kept one that turns out to
        be closed it is sent again. Seconds; 0 is no limit."""

    def run(self, timeout: float, /) -> list[Answer]:
        """Works until a transfer is done, none is active or the time in seconds is over. Signals
        are looked at."""

    def progress(self, number: int, /) -> tuple[int, int]:
        """Where the file ends now, and the bytes sent. ``ValueError`` when it is not active."""

    def cancel(self, number: int, /) -> None: ...
    @property
    def ca_file(self) -> str | None:
        """The trusted certificates that libcurl was built with."""
