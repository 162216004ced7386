"""Files of torch that must be refused: whatever asks for more than tensors, and broken ones."""

from __future__ import annotations

import struct

from torch_writer import (
    APPENDS,
    BUILD,
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_TUPLE,
    MAGIC,
    MARK,
    NONE,
    ORDERED,
    PERSISTENT,
    PROTO,
    REDUCE,
    SET_ITEM,
    STOP,
    TRUE,
    TUPLE,
    archive,
    asked,
    call,
    checksum,
    deflated_bomb,
    legacy,
    many,
    number,
    numbers,
    patched,
    state,
    storage,
    tensor,
    text,
)

DATA = bytes(24)
GOOD = state({"x": tensor()})
ZIP = archive(GOOD, {"0": DATA})
OLD = state({"x": tensor(storage(legacy=True))})
SHELL = text("echo")


def loads(*operations: bytes) -> bytes:
    """A zip file with a pickle of these operations."""
    return archive(PROTO + b"".join(operations) + STOP, {"0": DATA})


def holds(value: bytes) -> bytes:
    """A zip file with a state of one value."""
    return archive(state({"x": value}), {"0": DATA})


def placed(**place: object) -> bytes:
    return holds(tensor(**place))  # type: ignore[arg-type]


def nested(depth: int) -> bytes:
    return EMPTY_TUPLE + b"\x85" * depth


# A tuple of two references to a tuple of two references ...: small, but its hash is not.
DOUBLED = NONE + b"\x85" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
OS = "it asks for `os.system`"
EVAL = "it asks for `builtins.eval`"

ATTACKS = {
    "shell": (loads(call("os", "system", SHELL)), OS),
    "shell_as_posix": (loads(call("posix", "system", SHELL)), "`posix.system`"),
    "eval": (loads(call("builtins", "eval", SHELL)), EVAL),
    "eval_of_python_2": (loads(call("__builtin__", "eval", SHELL)), "`__builtin__.eval`"),
    "shell_by_stack_global": (loads(text("os"), text("system"), b"\x93"), OS),
    "shell_by_memo": (
        loads(text("os"), b"q\0", text("system"), b"q\1", b"h\0h\1\x93"),
        OS,
    ),
    "shell_by_instance": (loads(MARK, SHELL, b"ios\nsystem\n"), OS),
    "shell_by_object": (loads(MARK, asked("os", "system"), SHELL, b"o"), OS),
    "shell_in_arguments": (holds(tensor(call("os", "system", SHELL))), OS),
    "shell_in_a_state": (loads(ORDERED, call("os", "system", SHELL), BUILD), OS),
    "shell_as_storage_type": (holds(tensor(storage(kind=asked("os", "system")))), OS),
    "shell_as_key_of_a_storage": (
        loads(many(text("storage"), asked("os", "system")), PERSISTENT),
        OS,
    ),
    "getattr": (loads(asked("builtins", "getattr")), "`builtins.getattr`"),
    "attribute_of_an_allowed_global": (
        loads(text("torch._utils"), text("_rebuild_tensor_v2.__globals__"), b"\x93"),
        "`torch._utils._rebuild_tensor_v2.__globals__`",
    ),
    "torch_hub": (loads(asked("torch.hub", "load")), "`torch.hub.load`"),
    "torch_load": (loads(asked("torch", "load")), "`torch.load`"),
    "torch_load_from_bytes": (
        loads(asked("torch.storage", "_load_from_bytes")),
        "`torch.storage._load_from_bytes`",
    ),
    "torch_module": (loads(asked("torch.nn.modules.linear", "Linear")), "linear.Linear`"),
    "other_rebuild": (
        loads(asked("torch._utils", "_rebuild_device_tensor_from_numpy")),
        "`torch._utils._rebuild_device_tensor_from_numpy`",
    ),
    "numpy_scalar": (
        loads(asked("numpy.core.multiarray", "scalar")),
        "`numpy.core.multiarray.scalar`",
    ),
    "copyreg": (loads(asked("copy_reg", "_reconstructor")), "`copy_reg._reconstructor`"),
    "own_module": (
        loads(asked("curated_transformers.checkpoint", "GGUFFile")),
        "`curated_transformers.checkpoint.GGUFFile`",
    ),
    "name_with_a_long_end": (loads(asked("a", "b" * 300)), "name of a global does not end"),
    "extension_registry": (loads(b"\x82\1"), "operation EXT1"),
    "new_object": (loads(asked("collections", "OrderedDict"), EMPTY_TUPLE, b"\x81"), "NEWOBJ"),
    "attributes_of_an_allowed_function": (
        loads(
            asked("torch._utils", "_rebuild_tensor_v2"),
            many(NONE, EMPTY_DICT + text("__defaults__") + EMPTY_TUPLE + SET_ITEM),
            BUILD,
        ),
        "finds no OrderedDict",
    ),
    "attributes_of_a_state": (
        loads(ORDERED, many(NONE, EMPTY_DICT + text("__class__") + NONE + SET_ITEM), BUILD),
        "state of an OrderedDict",
    ),
    "call_of_a_type": (loads(call("torch", "FloatStorage", number(2**40))), "it calls `torch.Flo"),
    "call_of_a_number": (loads(number(1), EMPTY_TUPLE, REDUCE), "it calls an object of type int"),
    "call_of_a_string": (loads(SHELL, EMPTY_TUPLE, REDUCE), "it calls an object of type str"),
    "call_with_a_list": (
        loads(asked("torch", "Size"), EMPTY_LIST, REDUCE),
        "it calls an object",
    ),
    "string_behind_the_end": (loads(b"X", struct.pack("<I", 2**31), b"a"), "it needs 2147483648"),
    "huge_string": (loads(b"\x8d", struct.pack("<Q", 2**63)), "it needs 9223372036854775808"),
    "huge_bytes": (loads(b"\x8e", struct.pack("<Q", 2**62)), "operation BINBYTES8"),
    "huge_integer": (loads(b"\x8b", struct.pack("<I", 2**31 - 1)), "an integer of 2147483647"),
    "negative_integer_length": (loads(b"\x8b", struct.pack("<i", -1)), "an integer of 42949"),
    "decimal_integer": (loads(b"I" + b"9" * 10_000 + b"\n"), "operation INT"),
    "huge_frame": (loads(b"\x95", struct.pack("<Q", 2**63)), "a frame of"),
    "memo_that_is_not_there": (loads(b"j\xff\xff\xff\x7f"), "nothing was remembered as 2147483647"),
    "memo_of_nothing": (loads(b"q\0"), "nothing to remember"),
    "deep_tuples_as_a_key": (loads(EMPTY_DICT, nested(1_000_000), NONE, SET_ITEM), "type tuple"),
    "doubled_tuples_as_a_key": (loads(EMPTY_DICT, DOUBLED, NONE, SET_ITEM), "type tuple"),
    "deep_tuples_as_a_state": (loads(nested(1_000_000)), "it holds a tuple"),
    "doubled_tuples_as_a_shape": (
        holds(call("torch", "Size", DOUBLED)),
        "not made of sizes",
    ),
    "doubled_tuples_as_a_storage": (loads(DOUBLED, PERSISTENT), "not a storage"),
    "doubled_lists": (
        loads(EMPTY_LIST, *(b"q%c(h%ch%ce" % (i, i, i) for i in range(60))),
        "it holds a list",
    ),
    "list_in_itself": (loads(EMPTY_LIST, b"q\0", MARK, b"h\0", APPENDS), "it holds a list"),
    "pairs_passed_many_times": (
        loads(
            EMPTY_LIST,
            MARK,
            many(text("a"), NONE) * 30_000,
            APPENDS,
            b"q\0",
            (asked("collections", "OrderedDict") + b"h\0\x85R") * 300,
        ),
        "operations",
    ),
    "marks_without_end": (loads(MARK * 1_000_000), "it ends with 0 objects"),
}

PICKLES = {
    "empty_pickle": (archive(b""), "without a STOP"),
    "no_stop": (archive(GOOD[:-1], {"0": DATA}), "without a STOP"),
    "stop_at_once": (loads(), "it ends with 0 objects"),
    "two_objects": (loads(NONE, NONE), "it ends with 2 objects"),
    "bytes_behind_the_stop": (archive(GOOD + b"x", {"0": DATA}), "ends before the entry does"),
    "protocol_1": (archive(b"\x80\1" + GOOD[2:], {"0": DATA}), "protocol 1"),
    "protocol_9": (archive(b"\x80\x09" + GOOD[2:], {"0": DATA}), "protocol 9"),
    "unknown_operation": (loads(b"\xff"), "operation 0xff"),
    "not_utf8": (loads(b"X\1\0\0\0\xff"), "not UTF-8"),
    "name_of_a_global_not_utf8": (loads(b"c\xff\n\xff\n"), "not UTF-8"),
    "name_of_a_global_is_a_number": (loads(number(1), number(2), b"\x93"), "is not a string"),
    "stack_is_empty": (loads(b"\x85"), "takes more than there is"),
    "pop_below_a_mark": (loads(NONE, MARK, b"\x85"), "takes more than there is"),
    "tuple_without_mark": (loads(NONE, TUPLE), "needs a mark"),
    "append_to_a_dict": (loads(EMPTY_DICT, MARK, NONE, APPENDS), "finds no list"),
    "set_item_of_a_list": (loads(EMPTY_LIST, NONE, NONE, SET_ITEM), "finds no dict"),
    "set_item_of_a_global": (
        loads(asked("collections", "OrderedDict"), text("a"), NONE, SET_ITEM),
        "finds no dict",
    ),
    "key_without_value": (loads(EMPTY_DICT, MARK, text("a"), b"u"), "a key has no value"),
    "key_is_none": (loads(EMPTY_DICT, NONE, NONE, SET_ITEM), "of type NoneType"),
    "ordered_dict_of_a_string": (
        loads(call("collections", "OrderedDict", text("ab"))),
        "not a list of pairs",
    ),
}

STATES = {
    "state_is_a_tensor": (loads(tensor()), "it holds a tensor, not a state"),
    "state_is_a_list": (loads(EMPTY_LIST), "it holds a list, not a state"),
    "state_in_a_state": (
        archive(state({"epoch": number(3), "model": EMPTY_DICT}), {"0": DATA}),
        "`epoch` is a int; its keys are epoch, model",
    ),
    "state_with_a_string": (holds(text("a")), "`x` is a str"),
    "state_with_a_storage": (holds(storage()), "`x` is a StorageRef"),
    "state_with_a_number_as_key": (
        loads(EMPTY_DICT, number(5), tensor(), SET_ITEM),
        "`5` is a TensorRef",
    ),
}

TENSORS = {
    "tensor_ends_behind_its_storage": (placed(offset=1), "ends at element 7 of a storage of 6"),
    "stride_leads_outside": (placed(strides=(4, 1)), "ends at element 7"),
    "shape_is_huge": (placed(shape=(2**40, 3)), "ends at element"),
    "shape_overflows": (placed(shape=(2**61, 2**61)), "more than 2**62"),
    "shape_is_too_huge_for_a_size": (placed(shape=(2**64, 1)), "are not sizes"),
    "shape_is_negative": (placed(shape=(-2, -3)), "are not sizes"),
    "stride_is_negative": (placed(strides=(-3, 1)), "are not sizes"),
    "offset_is_negative": (placed(offset=-1), "are not sizes"),
    "empty_tensor_behind_its_storage": (placed(shape=(0, 3), offset=7), "ends at element 7"),
    "sizes_without_strides": (placed(strides=(3,)), "has 2 sizes and 1 strides"),
    "too_many_dimensions": (placed(shape=(1,) * 65, strides=(1,) * 65), "are not sizes"),
    "expanded": (placed(shape=(10**6, 10**6), strides=(0, 0)), "elements in a storage of 6"),
    "expanded_a_little": (placed(shape=(2, 6), strides=(0, 1)), "save it with contiguous()"),
    "shape_of_strings": (
        holds(
            call(
                "torch._utils",
                "_rebuild_tensor_v2",
                *(storage(), number(0), many(text("a")), numbers([1]), TRUE, ORDERED),
            )
        ),
        "are not sizes",
    ),
    "tensor_with_metadata": (
        placed(more=(EMPTY_DICT + text("conj") + TRUE + SET_ITEM,)),
        "has metadata",
    ),
    "tensor_of_too_few_arguments": (
        holds(call("torch._utils", "_rebuild_tensor_v2", storage())),
        "made of something else",
    ),
    "tensor_of_a_number": (holds(tensor(number(1))), "made of something else"),
    "tensor_of_an_untyped_storage": (
        holds(tensor(storage(kind=asked("torch.storage", "UntypedStorage")))),
        "without a type",
    ),
    "parameter_of_a_storage": (
        holds(call("torch._utils", "_rebuild_parameter", storage(), TRUE, ORDERED)),
        "made of something else than a tensor",
    ),
    "persistent_number": (loads(number(1), PERSISTENT), "not a storage"),
    "persistent_module": (
        loads(many(text("module"), *[text("a")] * 4), PERSISTENT),
        "not a storage",
    ),
    "storage_of_a_dtype": (holds(tensor(storage(kind=asked("torch", "float32")))), "is not one"),
    "storage_of_a_name": (holds(tensor(storage(kind=text("FloatStorage")))), "is not one"),
    "storage_of_negative_length": (holds(tensor(storage(n=-1))), "not a size"),
    "storage_of_two_lengths": (
        archive(state({"x": tensor(), "y": tensor(storage(n=7))}), {"0": DATA}),
        "two types or lengths",
    ),
    "storage_of_two_types": (
        archive(
            state({"x": tensor(), "y": tensor(storage(kind=asked("torch", "IntStorage")))}),
            {"0": DATA},
        ),
        "two types or lengths",
    ),
    "storage_is_missing": (archive(GOOD), "storage `0` is missing"),
    "storage_leads_outside": (
        holds(tensor(storage("../../data.pkl"))),
        "storage `../../data.pkl` is missing",
    ),
    "storage_is_too_short": (archive(GOOD, {"0": DATA[:-1]}), "has 23 bytes instead of 24"),
    "storage_is_too_long": (archive(GOOD, {"0": DATA + b"x"}), "has 25 bytes instead of 24"),
    "storage_is_huge": (holds(tensor(storage(n=2**61))), "instead of"),
    "storage_is_compressed": (
        archive(GOOD, {"0": DATA}, deflated=("data/0",)),
        "storage `0` is compressed",
    ),
}

CENTRAL, LOCAL, END = b"PK\1\2", b"PK\3\4", b"PK\5\6"


def field(raw: bytes, signature: bytes, offset: int, value: bytes, which: int = 0) -> bytes:
    """A field of the record with a signature replaced."""
    places = [i for i in range(len(raw)) if raw.startswith(signature, i)]
    place = places[which] + offset
    return raw[:place] + value + raw[place + len(value) :]


SHORT, LONG = struct.Struct("<H").pack, struct.Struct("<I").pack
DIRECTORY = ZIP.index(CENTRAL)
DEFLATED = archive(GOOD, {"0": DATA}, deflated=("data.pkl",))


def entry_in_another_one() -> bytes:
    """The directory has two entries of which one lies in the data of the other."""
    plain = archive(GOOD, {"0": DATA, "1": b"inner"})
    begin = plain.index(b"archive/data/1") - 30
    inner = plain[begin : begin + 30 + len("archive/data/1") + len("inner")]
    raw = archive(GOOD, {"0": inner, "1": b"inner"})
    return field(raw, CENTRAL, 42, LONG(raw.index(inner)), 3)


ZIPS = {
    "cut_in_half": (ZIP[: len(ZIP) // 2], "there is no b'PK\\x05\\x06' record"),
    "header_alone": (LOCAL, "outside of the file"),
    "bytes_behind": (ZIP + b"x", "there is no b'PK\\x05\\x06' record"),
    "bytes_in_front": (LOCAL + ZIP, "does not end at"),
    "comment": (field(ZIP + b"abc", END, 20, SHORT(3)), "there is no b'PK"),
    "comment_that_is_not_there": (field(ZIP, END, 20, SHORT(3)), "a comment"),
    "several_disks": (field(ZIP, END, 4, SHORT(1)), "several disks"),
    "entry_on_another_disk": (field(ZIP, CENTRAL, 34, SHORT(1)), "several disks"),
    "directory_elsewhere": (field(ZIP, END, 16, LONG(DIRECTORY - 1)), "does not end at"),
    "directory_is_huge": (field(ZIP, END, 12, LONG(2**32 - 2)), "does not end at"),
    "more_entries_than_there_are": (field(ZIP, END, 8, SHORT(9) * 2), "4 entries instead of 9"),
    "fewer_entries_than_there_are": (field(ZIP, END, 8, SHORT(1) * 2), "4 entries instead of 1"),
    "entry_twice": (
        archive(GOOD, {"0": DATA, "1": DATA}).replace(b"data/1", b"data/0"),
        "stands in it twice",
    ),
    "entry_in_another_one": (entry_in_another_one(), "entry `archive/data/1` overlaps"),
    "entry_outside": (field(ZIP, CENTRAL, 42, LONG(len(ZIP) - 10)), "outside of the file"),
    "entry_in_the_directory": (field(ZIP, CENTRAL, 42, LONG(DIRECTORY)), "outside of the file"),
    "entry_without_header": (field(ZIP, CENTRAL, 42, LONG(1)), "there is no b'PK\\x03\\x04'"),
    "entry_ends_behind_the_directory": (
        field(field(ZIP, CENTRAL, 20, LONG(2**20) * 2, 2), LOCAL, 18, LONG(2**20) * 2, 2),
        "lies outside",
    ),
    "name_differs": (patched(ZIP, b"archive/data/0", b"archive/data/1"), "not what the directory"),
    "method_differs": (field(ZIP, LOCAL, 8, SHORT(8)), "not what the directory says"),
    "size_differs": (field(ZIP, LOCAL, 22, LONG(9)), "not what the directory says"),
    "checksum_differs": (field(ZIP, LOCAL, 14, LONG(9)), "not what the directory says"),
    "encrypted": (field(field(ZIP, LOCAL, 6, SHORT(1)), CENTRAL, 8, SHORT(1)), "is encrypted"),
    "unknown_method": (field(ZIP, CENTRAL, 10, SHORT(12)), "unknown way 12"),
    "stored_with_two_sizes": (
        field(field(ZIP, CENTRAL, 24, LONG(9)), LOCAL, 22, LONG(9)),
        "has two sizes",
    ),
    "name_is_not_utf8": (ZIP.replace(b"archive/version", b"archive/versio\xff"), "not UTF-8"),
    "entry_of_the_directory_ends_behind_it": (
        field(ZIP, CENTRAL, 32, SHORT(2**16 - 1), -1),
        "ends behind it",
    ),
    "size_of_64_bits_is_missing": (field(ZIP, CENTRAL, 24, LONG(2**32 - 1)), "size of an entry"),
    "no_pickle": (archive(GOOD, prefix=""), "0 entries `data.pkl`"),
    "pickle_with_a_wrong_checksum": (
        ZIP.replace(checksum(GOOD), LONG(9)),
        "checksum of entry `archive/data.pkl` is wrong",
    ),
    "pickle_that_inflates_further": (deflated_bomb(10**7), "does not inflate to 100 bytes"),
    "pickle_that_does_not_inflate": (
        patched(DEFLATED, b"data.pkl" + DEFLATED[46:50], b"data.pkl" + b"\xff" * 4),
        "cannot be inflated",
    ),
    "pickle_that_is_inflated_too_early": (
        field(field(DEFLATED, LOCAL, 22, LONG(10**6)), CENTRAL, 24, LONG(10**6)),
        "does not inflate to 1000000 bytes",
    ),
    "pickle_is_huge": (
        archive(bytes((64 << 20) + 1), deflated=("data.pkl",)),
        "more than 67108864",
    ),
    "big_endian": (archive(GOOD, {"0": DATA}, order=b"big"), "byte order is `big`"),
    "unknown_byte_order": (archive(GOOD, {"0": DATA}, order=b"\xff"), "byte order is `\ufffd`"),
    "long_byte_order": (archive(GOOD, {"0": DATA}, order=b"l" * 65), "more than 64"),
    "unknown_version": (archive(GOOD, {"0": DATA}, version=b"99\n"), "version `99`"),
}

OLDS = {
    "neither": (b"\x00" * 20, "neither a zip archive nor a pickle"),
    "nothing": (b"", ""),
    "other_magic": (legacy(OLD, {"0": DATA}, magic=number(7)), "magic number"),
    "magic_calls": (
        legacy(OLD, {"0": DATA}, magic=call("os", "system", SHELL)),
        OS,
    ),
    "magic_refers": (
        legacy(OLD, {"0": DATA}, magic=storage(legacy=True, kind=NONE)),
        "where there are none",
    ),
    "other_version": (legacy(OLD, {"0": DATA}, version=1000), "its version"),
    "big_endian_machine": (legacy(OLD, {"0": DATA}, little_endian=b"\x89"), "its byte order"),
    "shell_in_an_old_file": (
        legacy(PROTO + call("os", "system", SHELL) + STOP, {"0": DATA}),
        OS,
    ),
    "old_storage_with_a_view": (
        legacy(OLD.replace(number(6) + NONE, number(6) + many(NONE)), {"0": DATA}),
        "is part of another one",
    ),
    "old_storage_without_its_view": (legacy(GOOD, {"0": DATA}), "not a storage"),
    "old_keys_are_missing": (legacy(OLD, {}), "not those that its tensors need"),
    "old_keys_are_more": (legacy(OLD, {"0": DATA, "1": DATA}), "not those that its tensors need"),
    "old_storage_of_other_length": (
        legacy(OLD, {"0": DATA}, counts={"0": 5}),
        "5 elements instead of 6",
    ),
    "old_storage_of_negative_length": (
        legacy(OLD, {"0": DATA}, counts={"0": -1}),
        "elements instead of 6",
    ),
    "old_storage_is_cut": (legacy(OLD, {"0": DATA})[:-1], "ends behind the file"),
    "old_file_has_more_behind": (legacy(OLD, {"0": DATA}) + b"x", "its storages end at byte"),
    "magic_alone": (PROTO + MAGIC, "without a STOP"),
}

TORCH = ATTACKS | PICKLES | STATES | TENSORS | ZIPS | OLDS
