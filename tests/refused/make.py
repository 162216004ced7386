"""Files that the loaders must refuse, one for each check, with a part of the message expected.

python tests/refused/make.py FOLDER     # writes them, for looking at them or to start a fuzzer
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from checkpoint_writers import (
    ARRAY,
    FLOAT32,
    STRING,
    UINT8,
    UINT32,
    gguf,
    gguf_string,
    safetensors,
)
from torch_cases import TORCH

HUGE = 2**63


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


DATA = bytes(8)
DEEP = b"[" * 100_000
SAFETENSORS = {
    "empty": (b"", ""),
    "shorter_than_a_length": (b"\0" * 7, "less than the length of a header"),
    "header_longer_than_the_file": (struct.pack("<Q", 100) + b"{}", "does not fit"),
    "header_length_overflows": (struct.pack("<Q", 2**64 - 1) + b"{}", "does not fit"),
    "header_over_the_limit": (struct.pack("<Q", 100_000_001) + b"{}", "does not fit"),
    "header_is_empty": (safetensors(b""), "does not begin with"),
    "header_begins_with_a_space": (safetensors(b" {}"), "does not begin with"),
    "header_is_a_list": (safetensors(b"[]"), "does not begin with"),
    "header_is_cut": (safetensors(b'{"x": '), "not valid JSON"),
    "header_is_not_utf8": (safetensors(b'{"\xff": 1}'), "not valid JSON"),
    "header_has_text_behind": (safetensors(b"{} x"), "not valid JSON"),
    "header_holds_nan": (safetensors(b'{"x": NaN}'), "NaN is not JSON"),
    "header_nests_deeply": (safetensors(b'{"x": ' + DEEP + b"}"), "not valid JSON"),
    "name_twice": (
        safetensors(
            b'{"x": %s, "x": %s}' % ((json.dumps(entry(offsets=(0, 8))).encode(),) * 2), DATA
        ),
        "holds `x` twice",
    ),
    "metadata_of_numbers": (safetensors({"__metadata__": {"a": 1}}), "`__metadata__`"),
    "metadata_is_a_list": (safetensors({"__metadata__": []}), "`__metadata__`"),
    "entry_is_a_list": (safetensors({"x": []}), "entry of tensor `x`"),
    "dtype_is_missing": (safetensors({"x": {}}), "unknown dtype None"),
    "dtype_is_unknown": (safetensors({"x": entry("F128")}, DATA), "unknown dtype 'F128'"),
    "dtype_is_a_list": (safetensors({"x": entry(["F32"])}, DATA), "unknown dtype"),
    "shape_is_negative": (safetensors({"x": entry(shape=[-2, -1])}, DATA), "shape of tensor `x`"),
    "shape_is_fractional": (safetensors({"x": entry(shape=[2.0])}, DATA), "shape of tensor `x`"),
    "shape_is_boolean": (safetensors({"x": entry(shape=[True])}, DATA), "shape of tensor `x`"),
    "shape_is_missing": (safetensors({"x": entry(shape=None)}, DATA), "shape of tensor `x`"),
    "shape_overflows": (
        safetensors({"x": entry(shape=[2**62, 4])}, DATA),
        "has 8 bytes instead of",
    ),
    "shape_does_not_fit": (safetensors({"x": entry(shape=[3])}, DATA), "8 bytes instead of 12"),
    "offsets_are_reversed": (safetensors({"x": entry(offsets=[8, 0])}, DATA), "data_offsets"),
    "offsets_are_negative": (safetensors({"x": entry(offsets=[-8, 0])}, DATA), "data_offsets"),
    "offsets_are_three": (safetensors({"x": entry(offsets=[0, 8, 8])}, DATA), "data_offsets"),
    "data_is_cut": (safetensors({"x": entry()}, DATA[:-1]), "the file has"),
    "data_has_more_behind": (safetensors({"x": entry()}, DATA + b"\0"), "the file has"),
    "hole_in_front": (safetensors({"x": entry(offsets=[8, 16])}, DATA * 2), "leaves a hole"),
    "hole_between": (
        safetensors({"x": entry(), "y": entry(offsets=[16, 24])}, DATA * 3),
        "tensor `y` leaves a hole",
    ),
    "overlap": (
        safetensors({"x": entry(), "y": entry(offsets=[4, 12])}, DATA + DATA[:4]),
        "tensor `y` overlaps",
    ),
    "same_place_twice": (safetensors({"x": entry(), "y": entry()}, DATA), "overlaps"),
}


def nested(depth: int) -> Any:
    return (UINT8, [1]) if depth == 0 else (ARRAY, [nested(depth - 1)])


X = ("x", [2], 0, 0)
GGUF = {
    "empty": (b"", ""),
    "other_magic": (b"GGML" + gguf()[4:], "does not begin with `GGUF`"),
    "version_1": (gguf(version=1), "version 1 is not supported"),
    "big_endian": (gguf(version=3 << 24), "big-endian"),
    "huge_tensor_count": (gguf(n_tensors=HUGE), "do not fit the file"),
    "huge_key_count": (gguf(n_entries=HUGE), "do not fit the file"),
    "one_tensor_too_many": (gguf(tensors=[X], n_tensors=2, data=DATA), "has 0 dimensions"),
    "one_key_too_many": (gguf([("a", UINT8, 1)], n_entries=2), "do not fit the file"),
    "huge_key": (gguf(n_entries=1) + struct.pack("<QQ", HUGE, 0), "a key needs"),
    "key_twice": (gguf([("a", UINT8, 1)] * 2), "key `a` twice"),
    "key_is_not_utf8": (gguf([(b"\xff", UINT8, 1)]), "a key is not UTF-8"),
    "type_of_value_is_unknown": (
        gguf(n_entries=1) + gguf_string("a") + struct.pack("<IQ", 13, 0),
        "key `a` has the unknown type 13",
    ),
    "type_of_elements_is_unknown": (
        gguf(n_entries=1) + gguf_string("a") + struct.pack("<IIQ", ARRAY, 77, 0),
        "key `a` has the unknown type 77",
    ),
    "huge_string": (
        gguf(n_entries=1) + gguf_string("a") + struct.pack("<IQ", STRING, HUGE),
        "key `a` needs",
    ),
    "huge_array_of_numbers": (
        gguf(n_entries=1) + gguf_string("a") + struct.pack("<IIQ", ARRAY, UINT32, 2**62),
        "elements of key `a` do not fit",
    ),
    "huge_array_of_strings": (
        gguf(n_entries=1) + gguf_string("a") + struct.pack("<IIQ", ARRAY, STRING, HUGE),
        "elements of key `a` do not fit",
    ),
    "huge_array_of_arrays": (
        gguf(n_entries=1) + gguf_string("a") + struct.pack("<IIQ", ARRAY, ARRAY, HUGE),
        "elements of key `a` do not fit",
    ),
    "huge_string_in_an_array": (
        gguf(n_entries=1) + gguf_string("a") + struct.pack("<IIQQ", ARRAY, STRING, 1, 2**64 - 1),
        "element 0 of key `a` ends behind the file",
    ),
    "arrays_nest_deeply": (gguf([("a", ARRAY, nested(20))]), "nested deeper than"),
    "alignment_is_zero": (gguf([("general.alignment", UINT32, 0)]), "alignment 0"),
    "alignment_is_no_power_of_two": (gguf([("general.alignment", UINT32, 48)]), "alignment 48"),
    "alignment_is_a_string": (gguf([("general.alignment", STRING, "x")]), "alignment 'x'"),
    "alignment_is_fractional": (gguf([("general.alignment", FLOAT32, 32)]), "alignment 32.0"),
    "tensor_twice": (gguf(tensors=[X, ("x", [2], 0, 32)], data=bytes(64)), "tensor `x` twice"),
    "tensor_name_is_not_utf8": (gguf(tensors=[(b"\xff", [2], 0, 0)], data=DATA), "not UTF-8"),
    "no_dimensions": (gguf(tensors=[("x", [], 0, 0)], data=DATA), "has 0 dimensions"),
    "five_dimensions": (gguf(tensors=[("x", [1] * 5, 0, 0)], data=DATA), "has 5 dimensions"),
    "type_of_tensor_is_unknown": (gguf(tensors=[("x", [2], 99, 0)], data=DATA), "unknown type 99"),
    "type_of_tensor_was_removed": (gguf(tensors=[("x", [2], 4, 0)], data=DATA), "unknown type 4"),
    "rows_of_broken_blocks": (gguf(tensors=[("x", [33], 8, 0)], data=bytes(64)), "whole blocks"),
    "shape_overflows": (
        gguf(tensors=[("x", [2**62, 2**62], 0, 0)], data=DATA),
        "the file has",
    ),
    "offset_outside": (gguf(tensors=[("x", [2], 0, 2**62)], data=DATA), "the file has"),
    "offset_overflows": (gguf(tensors=[("x", [2], 0, 2**64 - 32)], data=DATA), "the file has"),
    "offset_is_not_aligned": (gguf(tensors=[("x", [2], 0, 4)], data=bytes(16)), "multiple of 32"),
    "data_is_cut": (gguf(tensors=[X], data=DATA[:-1]), "the file has"),
    "overlap": (
        gguf(tensors=[("x", [32], 0, 0), ("y", [2], 0, 32)], data=bytes(128)),
        "tensor `y` overlaps",
    ),
}

#: suffix of the file -> name of the case -> (bytes, part of the message)
CASES = {"safetensors": SAFETENSORS, "gguf": GGUF, "bin": TORCH}


def main(folder: Path) -> None:
    for suffix, cases in CASES.items():
        (folder / suffix).mkdir(parents=True, exist_ok=True)
        for name, (raw, message) in cases.items():
            (folder / suffix / f"{name}.{suffix}").write_bytes(raw)
            print(f"{suffix}/{name}.{suffix}: {message}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
