"""Changes of valid files, which get further into a parser than random bytes do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

#: Lengths that lie, for fields of 4 and 8 bytes in little endian, and of 10 as protobuf has them.
EXTREMES = (
    *(b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\0\0\0\0"),
    *(b"\xff" * 8, b"\0" * 7 + b"\x80", b"\xff" * 7 + b"\x7f", b"\0" * 8),
    b"\xff" * 9 + b"\1",
)


def changes(pieces: Iterable[bytes] = ()) -> Any:
    """One to six changes; those that put bytes somewhere also put lies and the format's pieces."""
    return st.lists(
        st.tuples(
            st.sampled_from(["put", "insert", "remove", "cut", "repeat"]),
            st.floats(0, 1, exclude_max=True),
            st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([*EXTREMES, *pieces])),
        ),
        min_size=1,
        max_size=6,
    )


def changed(raw: bytes, steps: Iterable[tuple[str, float, bytes]]) -> bytes:
    """The bytes after the changes."""
    for kind, place, data in steps:
        at = int(place * len(raw))
        if kind == "put":
            raw = raw[:at] + data + raw[at + len(data) :]
        elif kind == "insert":
            raw = raw[:at] + data + raw[at:]
        elif kind == "remove":
            raw = raw[:at] + raw[at + len(data) :]
        elif kind == "cut":
            raw = raw[:at]
        else:
            raw = raw[:at] + raw[at : at + 40] * len(data) + raw[at:]
    return raw
