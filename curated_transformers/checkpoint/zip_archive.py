"""The entries of a zip archive in mapped memory, as torch writes it, and only so.

Two readers of a zip can see two different archives in one file: by different directories, by
entries that overlap, by sizes that differ between an entry and the directory. So one form is
accepted: the directory ends the file, every entry lies before it, none overlaps another, and what
is said twice is the same (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

MAX_DIRECTORY: Final = 32 << 20

STORED, DEFLATED = 0, 8
_ENCRYPTED, _SIZES_BEHIND = 1 << 0, 1 << 3
_IN_ZIP64_16, _IN_ZIP64_32 = 0xFFFF, 0xFFFFFFFF

# Signature, then the fields up to the name or the end.
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")


@dataclass(frozen=True)
class ZipEntry:
    """An entry: how it is stored, its checksum, the bytes ``[begin, end)`` of the file that hold
    it, its size when it is inflated, and where its header is."""

    name: str
    method: int
    crc: int
    begin: int
    end: int
    size: int
    header: int

    @property
    def is_stored(self) -> bool:
        """Whether its bytes lie in the file as they are."""
        return self.method == STORED


class ZipArchive:
    """The entries of an archive by name. ``error`` makes the error for a broken one."""

    def __init__(self, raw: memoryview, error: Callable[[str], Exception]) -> None:
        self._raw = raw
        self._error = error
        self.entries: dict[str, ZipEntry] = {}
        n_entries, begin, end = self._directory()
        for entry in self._central(begin, end):
            if entry.name in self.entries:
                raise error(f"entry `{entry.name}` stands in it twice")
            self.entries[entry.name] = entry
        if len(self.entries) != n_entries:
            raise error(f"its directory has {len(self.entries)} entries instead of {n_entries}")
        self._check_overlaps(begin)

    def read(self, name: str, limit: int) -> bytes:
        """The contents of a small entry, with the checksum tested."""
        entry = self.entries[name]
        if entry.size > limit:
            raise self._error(f"entry `{name}` has {entry.size} bytes, more than {limit}")
        data = bytes(self._raw[entry.begin : entry.end])
        if entry.method == DEFLATED:
            data = self._inflated(entry, data)
        if zlib.crc32(data) != entry.crc:
            raise self._error(f"the checksum of entry `{name}` is wrong")
        return data

    def _inflated(self, entry: ZipEntry, data: bytes) -> bytes:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            result = inflater.decompress(data, entry.size + 1)
        except zlib.error as error:
            raise self._error(f"entry `{entry.name}` cannot be inflated ({error})") from None
        if len(result) != entry.size or not inflater.eof or inflater.unused_data:
            raise self._error(f"entry `{entry.name}` does not inflate to {entry.size} bytes")
        return result

    def _fields(self, layout: struct.Struct, signature: bytes, at: int, end: int) -> list[int]:
        """The numbers of a record that must end before ``end``."""
        if at < 0 or layout.size > end - at:
            raise self._error(f"a record at {at} lies outside of the file or the directory")
        found, *numbers = layout.unpack_from(self._raw, at)
        if found != signature:
            raise self._error(f"there is no {signature!r} record at {at}")
        return numbers

    def _directory(self) -> tuple[int, int, int]:
        """Number of entries, begin and end of the directory, which the end records follow."""
        size = len(self._raw)
        end = size - _END.size
        disk, of_disk, here, total, length, begin, comment = self._fields(
            _END, b"PK\5\6", end, size
        )
        claimed = (disk, of_disk, here, total, length, begin)
        locator = end - _LOCATOR.size
        if locator >= 0 and bytes(self._raw[locator : locator + 4]) == b"PK\6\7":
            locator_disk, end64, disks = self._fields(_LOCATOR, b"PK\6\7", locator, end)
            record, _, _, disk, of_disk, here, total, length, begin = self._fields(
                _END64, b"PK\6\6", end64, locator
            )
            if end64 + 12 + record != locator or locator_disk or disks != 1:
                raise self._error("its directory does not end where it says")
            limits = (_IN_ZIP64_16,) * 4 + (_IN_ZIP64_32,) * 2
            real = (disk, of_disk, here, total, length, begin)
            if any(a not in (b, most) for a, b, most in zip(claimed, real, limits, strict=True)):
                raise self._error("its two records of the directory differ")
            end = end64
        if disk or of_disk or here != total or comment:
            raise self._error("it has several disks or a comment")
        if length > MAX_DIRECTORY or begin + length != end:
            raise self._error(f"a directory of {length} bytes at {begin} does not end at {end}")
        return total, begin, end

    def _central(self, at: int, end: int) -> Iterator[ZipEntry]:
        begin = at
        while at < end:
            fields = self._fields(_CENTRAL, b"PK\1\2", at, end)
            _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment = fields[:12]
            disk, _, _, header = fields[12:]
            name_at = at + _CENTRAL.size
            at = name_at + n_name + n_extra + n_comment
            if at > end:
                raise self._error("an entry of its directory ends behind it")
            name_raw = bytes(self._raw[name_at : name_at + n_name])
            extra = self._raw[name_at + n_name : name_at + n_name + n_extra]
            size, packed, header = self._wide(extra, size, packed, header)
            if disk:
                raise self._error("it has several disks")
            yield self._entry(name_raw, flags, method, crc, packed, size, header, begin)

    def _wide(self, extra: memoryview, *sizes: int) -> list[int]:
        """Sizes that do not fit 32 bits stand in an extra field, in this order."""
        missing = sizes.count(_IN_ZIP64_32)
        if missing == 0:
            return list(sizes)
        at = 0
        while at + 4 <= len(extra):
            kind, n = struct.unpack_from("<2H", extra, at)
            if kind == 1 and 8 * missing <= n <= len(extra) - at - 4:
                wide = iter(struct.unpack_from(f"<{missing}Q", extra, at + 4))
                return [next(wide) if one == _IN_ZIP64_32 else one for one in sizes]
            at += 4 + n
        raise self._error("the size of an entry is missing")

    def _entry(
        self,
        name_raw: bytes,
        flags: int,
        method: int,
        crc: int,
        packed: int,
        size: int,
        header: int,
        directory: int,
    ) -> ZipEntry:
        try:
            name = name_raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self._error("the name of an entry is not UTF-8") from None
        if flags & _ENCRYPTED or method not in (STORED, DEFLATED):
            raise self._error(f"entry `{name}` is encrypted or packed in the unknown way {method}")
        local = self._fields(_LOCAL, b"PK\3\4", header, directory)
        _, flags_again, method_again, _, _, crc_again, *sizes_again, n_name, n_extra = local
        name_at = header + _LOCAL.size
        begin = name_at + n_name + n_extra
        if begin + packed > directory:
            raise self._error(f"entry `{name}` lies outside of the file")
        same = bytes(self._raw[name_at : name_at + n_name]) == name_raw
        same = same and (flags, method) == (flags_again, method_again)
        if not flags & _SIZES_BEHIND:
            sizes = zip(sizes_again, (packed, size), strict=True)
            same = same and crc_again == crc and all(a in (b, _IN_ZIP64_32) for a, b in sizes)
        if not same:
            raise self._error(f"entry `{name}` is not what the directory says")
        if method == STORED and packed != size:
            raise self._error(f"entry `{name}` is stored, but has two sizes")
        return ZipEntry(name, method, crc, begin, begin + packed, size, header)

    def _check_overlaps(self, directory: int) -> None:
        position = 0
        for entry in sorted(self.entries.values(), key=lambda entry: (entry.header, entry.end)):
            if entry.header < position:
                raise self._error(f"entry `{entry.name}` overlaps another one")
            position = entry.end
        assert position <= directory
