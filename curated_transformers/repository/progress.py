"""The bar that shows how many bytes have been transferred."""

from __future__ import annotations

from typing import Any

from . import environment


def progress_bar(title: str, total: int | None, initial: int = 0) -> Any:
    """A bar of tqdm; None where the user wants none."""
    if environment.progress_is_disabled() is True:
        return None
    from tqdm.auto import tqdm  # takes longer to import than the package

    return tqdm(
        total=total,
        initial=initial,
        unit="B",
        unit_scale=True,
        desc=title,
        disable=environment.progress_is_disabled(),
    )
