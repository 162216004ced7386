"""Writes files as torch.save does, valid or not, without torch: nothing that is given is checked.

A pickle is put together from its operations; see the module `pickletools` for what they do.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

PROTO, STOP = b"\x80\2", b"."
MARK, TUPLE, REDUCE, BUILD, PERSISTENT = b"(", b"t", b"R", b"b", b"Q"
EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE = b"}", b"]", b")"
SET_ITEM, SET_ITEMS, APPENDS = b"s", b"u", b"e"
NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"

MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def many(*operations: bytes) -> bytes:
    """A tuple."""
    return MARK + b"".join(operations) + TUPLE


def numbers(values: Iterable[int]) -> bytes:
    return many(*map(number, values))


def asked(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return asked(module, name) + many(*arguments) + REDUCE


ORDERED = call("collections", "OrderedDict")


def storage(
    key: str = "0",
    n: int = 6,
    *,
    kind: bytes = asked("torch", "FloatStorage"),
    location: str = "cpu",
    legacy: bool = False,
) -> bytes:
    """A reference to a storage of ``n`` elements."""
    view = (NONE,) if legacy else ()
    identity = many(text("storage"), kind, text(key), text(location), number(n), *view)
    return identity + PERSISTENT


def tensor(
    stored: bytes | None = None,
    *,
    offset: int = 0,
    shape: Iterable[int] = (2, 3),
    strides: Iterable[int] = (3, 1),
    more: tuple[bytes, ...] = (),
) -> bytes:
    return call(
        "torch._utils",
        "_rebuild_tensor_v2",
        storage() if stored is None else stored,
        number(offset),
        numbers(shape),
        numbers(strides),
        FALSE,
        ORDERED,
        *more,
    )


def state(entries: Mapping[str, bytes]) -> bytes:
    """The whole pickle of a dict."""
    items = b"".join(text(name) + value for name, value in entries.items())
    return PROTO + EMPTY_DICT + MARK + items + SET_ITEMS + STOP


def archive(
    pickle: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    prefix: str = "archive/",
    order: bytes | None = b"little",
    version: bytes | None = b"3\n",
    deflated: tuple[str, ...] = (),
) -> bytes:
    """A zip file; ``deflated`` names entries, without the prefix, that are compressed."""
    entries = {"data.pkl": pickle}
    entries |= {} if order is None else {"byteorder": order}
    entries |= {f"data/{key}": data for key, data in (storages or {}).items()}
    entries |= {} if version is None else {"version": version}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for name, data in entries.items():
            method = zipfile.ZIP_DEFLATED if name in deflated else zipfile.ZIP_STORED
            target.writestr(zipfile.ZipInfo(prefix + name), data, method)
    return file.getvalue()


def write_archive_with_hole(path: Path, pickle: bytes, hole: int, behind: bytes) -> None:
    """A zip file whose storage `0` is a hole of the file, larger than 32 bits can say, and behind
    it storage `1`: what is large stands in fields of 64 bits, as torch has them."""
    wide, directory = b"\xff" * 4, b""
    contents = {"a/data.pkl": pickle, "a/data/0": None, "a/data/1": behind}
    with path.open("wb") as file:
        for name, data in contents.items():
            at, size = file.tell(), hole if data is None else len(data)
            short = wide if data is None else struct.pack("<I", size)
            sizes = struct.pack("<QQ", size, size) if data is None else b""
            extra = struct.pack("<HH", 1, len(sizes)) + sizes if sizes else b""
            crc = bytes(4) if data is None else checksum(data)
            common = struct.pack("<HHHHH", 45, 0, 0, 0, 0) + crc + short * 2
            common += struct.pack("<H", len(name))
            file.write(b"PK\3\4" + common + struct.pack("<H", len(extra)) + name.encode() + extra)
            if data is None:
                file.seek(hole, io.SEEK_CUR)
            else:
                file.write(data)
            if at > 0xFFFFFFFF:
                sizes += struct.pack("<Q", at)
            extra = struct.pack("<HH", 1, len(sizes)) + sizes if sizes else b""
            place = wide if at > 0xFFFFFFFF else struct.pack("<I", at)
            rest = struct.pack("<HHHHI", len(extra), 0, 0, 0, 0) + place
            directory += b"PK\1\2" + b"\x2d\0" + common + rest + name.encode() + extra
        begin = file.tell()
        end = b"PK\6\6" + struct.pack("<QHHIIQQ", 44, 45, 45, 0, 0, 3, 3)
        end += struct.pack("<QQ", len(directory), begin)
        locator = b"PK\6\7" + struct.pack("<IQI", 0, begin + len(directory), 1)
        last = b"PK\5\6" + struct.pack("<HHHHI", 0, 0, 3, 3, len(directory)) + wide + b"\0\0"
        file.write(directory + end + locator + last)


def with_pickle(raw: bytes, pickle: bytes) -> bytes:
    """A zip file that torch wrote, with another pickle in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as source, zipfile.ZipFile(file, "w") as target:
        for info in source.infolist():
            data = pickle if info.filename.endswith("data.pkl") else source.read(info)
            target.writestr(zipfile.ZipInfo(info.filename), data)
    return file.getvalue()


def legacy(
    pickle: bytes,
    storages: Mapping[str, bytes],
    *,
    item: int = 4,
    magic: bytes = MAGIC,
    version: int = 1001,
    little_endian: bytes = TRUE,
    counts: Mapping[str, int] | None = None,
) -> bytes:
    """The format before 1.6; each storage is preceded by its number of elements of ``item`` bytes,
    or what ``counts`` says."""
    system = PROTO + EMPTY_DICT + text("little_endian") + little_endian + SET_ITEM + STOP
    keys = PROTO + EMPTY_LIST + MARK + b"".join(map(text, storages)) + APPENDS + STOP
    data = b""
    for key, raw in storages.items():
        data += struct.pack("<q", (counts or {}).get(key, len(raw) // item)) + raw
    return PROTO + magic + STOP + PROTO + number(version) + STOP + system + pickle + keys + data


def patched(raw: bytes, old: bytes, new: bytes, which: int = 0) -> bytes:
    """One occurrence of ``old``, -1 for the last, replaced."""
    places = [i for i in range(len(raw)) if raw.startswith(old, i)]
    place = places[which]
    return raw[:place] + new + raw[place + len(old) :]


def deflated_bomb(size: int) -> bytes:
    """A zip file whose pickle inflates to ``size`` zeros and says that it is small."""
    raw = archive(bytes(size), deflated=("data.pkl",))
    small = struct.pack("<I", 100)
    for which in (0, 0):  # in the entry and in the directory
        raw = patched(raw, struct.pack("<I", size), small, which)
    return raw


def checksum(data: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(data))
