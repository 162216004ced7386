"""docs/architectures.md: which architectures are compared with transformers, and in what.

    make table     # runs this file in the environment of `make oracle`

The table is made of what pytest collects from `test_parity.py`, so it cannot say more than is
tested; a test there fails when it is out of date.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "architectures.md"
BEGIN, END = "<!-- the table: make table -->\n", "<!-- end of the table -->\n"


class _Collected:
    """The variants of each architecture in each test, and the tests in their order."""

    def __init__(self) -> None:
        self.tests: list[str] = []
        self.variants: dict[tuple[str, str], set[str]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            variant = getattr(item, "callspec", None) and item.callspec.params.get("pair")
            if not variant:
                continue
            name = item.originalname.removeprefix("test_").replace("_", " ")
            if name not in self.tests:
                self.tests.append(name)
            self.variants.setdefault((variant.architecture, name), set()).add(variant.name)


def table() -> str:
    """Architectures by tests; a cell is the number of variants, and the tests stand below."""
    collected = _Collected()
    with contextlib.redirect_stdout(io.StringIO()):
        arguments = ["--collect-only", "-q", "-m", "slow", "-p", "no:cacheprovider"]
        pytest.main([*arguments, str(HERE / "test_parity.py")], plugins=[collected])
    architectures = Counter()
    for (architecture, _), variants in collected.variants.items():
        architectures[architecture] = max(architectures[architecture], len(variants))
    numbers = range(1, len(collected.tests) + 1)
    lines = [_row("architecture", *map(str, numbers)), _row("---", *("---" for _ in numbers))]
    for architecture in sorted(architectures):
        found: list[Any] = [
            len(collected.variants.get((architecture, test), ())) or "" for test in collected.tests
        ]
        lines.append(_row(f"`{architecture}`", *map(str, found)))
    lines += ["", *(f"{n}. {test}" for n, test in zip(numbers, collected.tests, strict=True))]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def page_with(new: str) -> str:
    """The page with another table."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + "\n" + new + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page_with(table()))
