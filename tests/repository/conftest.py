"""The progress bars that are shown, as objects that remember what they were told."""

from __future__ import annotations

import pytest


class Bar:
    """Stands in for tqdm and remembers."""

    made: list[Bar] = []  # noqa: RUF012

    def __init__(self, **options):
        self.options, self.n, self.closed = options, options["initial"], False
        Bar.made.append(self)

    def update(self, n):
        self.n += n

    def close(self):
        self.closed = True


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    monkeypatch.setattr(Bar, "made", [])
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS")
    return Bar.made
