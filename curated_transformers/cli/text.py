"""Numbers and tables for people."""

from __future__ import annotations

from collections.abc import Sequence


def bytes_text(n_bytes: int) -> str:
    """``98.9 MB``; powers of 1000, as disks and downloads are counted."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if round(size, 1) < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def counted(n: int, thing: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, each as wide as its widest entry."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
