"""Unpickling that can only make plain data and what a closed list names.

`pickle.Unpickler` with its own `find_class` is not enough for files from strangers: it allocates
its memo by an index in the file, hashes nested tuples by recursion, which ends the process or takes
exponential time, and lets BUILD set attributes of the functions that `find_class` gives. So the
operations that torch.save writes are carried out here, each with its length checked against the
file, within a budget; nothing is imported or called that the list does not hold.
"""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

#: A state of 100,000 tensors takes 15 MB and 3.5 million operations.
MAX_PICKLE: Final = 64 << 20
MAX_OPERATIONS: Final = 4_000_000

_LONGEST_NAME = 256  # of a module or of what is in it
_LONGEST_INTEGER = 16  # bytes; the magic number of torch's files has 10
_STOP = ord(".")


class CheckpointUnpicklingError(pickle.UnpicklingError, ValueError):
    """A checkpoint's pickle is broken, or asks for more than a checkpoint needs."""


@dataclass(frozen=True)
class Global:
    """What stands for a global that the list allows: ``call`` is what calling it does with a tuple
    of arguments, None where it must not be called. Being frozen it cannot be changed by a file."""

    module: str
    name: str
    call: Callable[[tuple[Any, ...]], Any] | None = None


Globals = Mapping[tuple[str, str], Global]


class RestrictedUnpickler:
    """Reads one pickle from ``raw``, beginning at ``position``, which then is behind its end.

    ``source`` is how errors name it; what ``persistent_load`` and the calls of ``allowed`` refuse
    they raise as ``ValueError``. Raises ``CheckpointUnpicklingError``.
    """

    def __init__(
        self,
        raw: memoryview,
        source: str,
        allowed: Globals,
        persistent_load: Callable[[Any], Any] | None = None,
        position: int = 0,
    ) -> None:
        self.position = position
        self._raw = raw
        self._end = min(len(raw), position + MAX_PICKLE)
        self._source = source
        self._allowed = allowed
        self._persistent_load = persistent_load
        self._budget = MAX_OPERATIONS
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._floor = 0  # where the part of the stack behind the last mark begins
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The object. Plain containers, strings, numbers, and what the calls made."""
        while True:
            code = self._byte()
            if code == _STOP:
                break
            operation = _OPERATIONS.get(code)
            if operation is None:
                self._refuse_operation(code)
            self.spend(1)
            operation(self)
        if self._marks or len(self._stack) != 1:
            raise self.error(f"it ends with {len(self._stack)} objects instead of one")
        return self._stack.pop()

    def find_class(self, module: str, name: str) -> Global:
        """What stands for a global. Raises with its name for one that is not in the list."""
        found = self._allowed.get((module, name))
        if found is None:
            shown = f"{module}.{name}"[:_LONGEST_NAME]
            raise self.error(f"it asks for `{shown}`, which is not among what weights need")
        return found

    def error(self, what: str) -> CheckpointUnpicklingError:
        """The error that says why the pickle is refused."""
        return CheckpointUnpicklingError(f"{self._source}: the pickle is refused: {what}")

    def spend(self, n: int) -> None:
        """Takes work from the budget."""
        self._budget -= n
        if self._budget < 0:
            raise self.error(f"it takes more than {MAX_OPERATIONS} operations")

    # Reading.

    def _read(self, n: int) -> memoryview:
        begin = self.position
        if n > self._end - begin:
            raise self.error(f"it needs {n} bytes at {begin}, where {self._end - begin} are left")
        self.position = begin + n
        return self._raw[begin : begin + n]

    def _byte(self) -> int:
        if self.position >= self._end:
            raise self.error(f"it ends at {self.position} without a STOP")
        self.position += 1
        return self._raw[self.position - 1]

    def _integer(self, n: int, signed: bool = False) -> int:
        return int.from_bytes(self._read(n), "little", signed=signed)

    def _line(self) -> str:
        begin = self.position
        line, newline, _ = bytes(self._raw[begin : begin + _LONGEST_NAME]).partition(b"\n")
        if not newline or begin + len(line) >= self._end:
            raise self.error("the name of a global does not end")
        self.position = begin + len(line) + 1
        return self._text(line)

    def _text(self, raw: bytes | memoryview) -> str:
        try:
            # torch writes what UTF-8 has no place for as pickle does.
            return str(raw, "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise self.error("a string is not UTF-8") from None

    def _refuse_operation(self, code: int) -> NoReturn:
        import pickletools

        known = {ord(operation.code): operation.name for operation in pickletools.opcodes}
        name = known.get(code, f"0x{code:02x}")
        raise self.error(f"operation {name} is not among those of torch.save")

    # The stack.

    def _pop(self) -> Any:
        if len(self._stack) <= self._floor:
            raise self.error("an operation takes more than there is")
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        """The object on top, which must be of a kind."""
        if len(self._stack) <= self._floor or not isinstance(self._stack[-1], kind):
            raise self.error(f"an operation finds no {kind.__name__} to change")
        return self._stack[-1]

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise self.error("an operation needs a mark, which is not there")
        values = self._stack[self._floor :]
        del self._stack[self._floor :]
        self._marks.pop()
        self._floor = self._marks[-1] if self._marks else 0
        return values

    # Operations.

    def _protocol(self) -> None:
        version = self._integer(1)
        if not 2 <= version <= 5:
            raise self.error(f"protocol {version} is not supported")

    def _frame(self) -> None:
        length = self._integer(8)
        if length > self._end - self.position:
            raise self.error(f"a frame of {length} bytes does not fit")

    def _mark(self) -> None:
        self._floor = len(self._stack)
        self._marks.append(self._floor)

    def _unicode(self, size: int) -> None:
        self._push(self._text(self._read(self._integer(size))))

    def _long(self, size: int) -> None:
        n = self._integer(size)
        if n > _LONGEST_INTEGER:
            raise self.error(f"an integer of {n} bytes is too large")
        self._push(self._integer(n, signed=True))

    def _float(self) -> None:
        self._push(struct.unpack(">d", self._read(8))[0])

    def _tuple(self, n: int) -> None:
        if len(self._stack) - n < self._floor:
            raise self.error("an operation takes more than there is")
        self._stack[-n:] = [tuple(self._stack[-n:])]

    def _put(self, index: int) -> None:
        if len(self._stack) <= self._floor:
            raise self.error("there is nothing to remember")
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise self.error(f"nothing was remembered as {index}")
        self._push(self._memo[index])

    def _set_items(self, values: list[Any]) -> None:
        target = self._top(dict)
        if len(values) % 2:
            raise self.error("a key has no value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            self._set_item(target, key, value)

    def _set_item(self, target: dict[Any, Any], key: Any, value: Any) -> None:
        if type(key) not in (str, int):
            raise self.error(f"a key is of type {type(key).__name__}, not a string or integer")
        target[key] = value

    def _set_one(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _append(self) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _extend(self) -> None:
        values = self._pop_to_mark()
        self._top(list).extend(values)

    def _global(self) -> None:
        module = self._line()
        self._push(self.find_class(module, self._line()))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise self.error("the name of a global is not a string")
        self._push(self.find_class(module, name))

    def _instance(self) -> None:
        self._global()  # refuses by name what is not in the list
        self._refuse_operation(ord("i"))

    def _persistent(self) -> None:
        if self._persistent_load is None:
            raise self.error("it refers to storages where there are none")
        self._push(self._checked(self._persistent_load, self._pop()))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Global) or type(arguments) is not tuple:
            raise self.error(f"it calls an object of type {type(function).__name__}")
        if (function.module, function.name) == ("collections", "OrderedDict"):
            self._push(self._ordered_dict(arguments))
        elif function.call is None:
            raise self.error(f"it calls `{function.module}.{function.name}`")
        else:
            self._push(self._checked(function.call, arguments))

    def _ordered_dict(self, arguments: tuple[Any, ...]) -> OrderedDict[Any, Any]:
        # Python 2 passes a list of pairs; it may be passed many times.
        result: OrderedDict[Any, Any] = OrderedDict()
        pairs = arguments[0] if len(arguments) == 1 else []
        if len(arguments) > 1 or type(pairs) is not list:
            raise self.error("the arguments of an OrderedDict are not a list of pairs")
        self.spend(len(pairs))
        for pair in pairs:
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise self.error("the arguments of an OrderedDict are not a list of pairs")
            self._set_item(result, pair[0], pair[1])
        return result

    def _build(self) -> None:
        # The attributes of an OrderedDict are torch's notes on versions of modules.
        state = self._pop()
        self._top(OrderedDict)
        if not isinstance(state, dict):
            raise self.error(f"it sets the state of an OrderedDict to a {type(state).__name__}")

    def _checked(self, function: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return function(argument)
        except ValueError as error:
            raise self.error(str(error)) from None


#: What torch.save writes, with protocol 2 (its default) to 5, and Python 2 wrote.
_OPERATIONS: Final[Mapping[int, Callable[[RestrictedUnpickler], None]]] = {
    ord(code): operation
    for code, operation in {
        "\x80": RestrictedUnpickler._protocol,
        "\x95": RestrictedUnpickler._frame,
        "(": RestrictedUnpickler._mark,
        "N": lambda self: self._push(None),
        "\x88": lambda self: self._push(True),
        "\x89": lambda self: self._push(False),
        "K": lambda self: self._push(self._byte()),
        "M": lambda self: self._push(self._integer(2)),
        "J": lambda self: self._push(self._integer(4, signed=True)),
        "\x8a": lambda self: self._long(1),
        "\x8b": lambda self: self._long(4),
        "G": RestrictedUnpickler._float,
        "U": lambda self: self._unicode(1),
        "T": lambda self: self._unicode(4),
        "\x8c": lambda self: self._unicode(1),
        "X": lambda self: self._unicode(4),
        "\x8d": lambda self: self._unicode(8),
        "}": lambda self: self._push({}),
        "]": lambda self: self._push([]),
        ")": lambda self: self._push(()),
        "\x85": lambda self: self._tuple(1),
        "\x86": lambda self: self._tuple(2),
        "\x87": lambda self: self._tuple(3),
        "t": lambda self: self._push(tuple(self._pop_to_mark())),
        "s": RestrictedUnpickler._set_one,
        "u": lambda self: self._set_items(self._pop_to_mark()),
        "a": RestrictedUnpickler._append,
        "e": RestrictedUnpickler._extend,
        "q": lambda self: self._put(self._byte()),
        "r": lambda self: self._put(self._integer(4)),
        "\x94": lambda self: self._put(len(self._memo)),
        "h": lambda self: self._get(self._byte()),
        "j": lambda self: self._get(self._integer(4)),
        "c": RestrictedUnpickler._global,
        "\x93": RestrictedUnpickler._stack_global,
        "i": RestrictedUnpickler._instance,
        "Q": RestrictedUnpickler._persistent,
        "R": RestrictedUnpickler._reduce,
        "b": RestrictedUnpickler._build,
    }.items()
}
