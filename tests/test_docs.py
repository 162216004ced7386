"""What the documents name is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from models.variants import VARIANTS

TESTS = Path(__file__).parent
PAGES = sorted([*(TESTS.parent / "docs").glob("*.md"), *TESTS.parent.glob("*.md")])


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_defect_has_a_test_that_exists():
    text = (TESTS.parent / "docs" / "defects.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| (D?\d+) \|", line)]
    assert [row.split()[1] for row in rows[:25]] == [f"D{n}" for n in range(1, 26)]
    assert [row.split()[1] for row in rows[25:]] == [str(n) for n in range(1, 17)]
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        assert named or row.startswith("| D16 "), row
        for file, function in named:
            assert function in functions(TESTS / file), (file, function)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_folders_that_a_page_names_exist(page):
    root = TESTS.parent
    for name in re.findall(
        r"`((?:docs|csrc|tests|benchmarks|curated_transformers)/[\w/.-]+)`", page.read_text()
    ):
        assert (root / name).exists(), f"{page.name} names {name}"


def test_the_readme_counts_the_variants_that_are_compared():
    text = (TESTS.parent / "README.md").read_text()
    assert re.findall(r"(\d+) variants of these architectures", text) == [str(len(VARIANTS))]
