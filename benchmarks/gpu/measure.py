"""How a measurement is taken, and what a machine can give at most."""

# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from .shapes import ModelShape

ROUNDS = 3
COPY_BYTES, DENSE_WIDTH = 2 << 30, 8192
SMALL_COPY_BYTES, SMALL_DENSE_WIDTH = 64 << 20, 512


def seconds(run: Callable[[], object]) -> list[float]:
    """Of each round after one that warms up; `run` returns when its result is there."""
    run()
    times = []
    for _ in range(ROUNDS):
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return times


def prompts(shape: ModelShape, count: int, length: int) -> npt.NDArray[np.int64]:
    """Drawn, as a beginning that prompts share would be computed once."""
    rng = np.random.default_rng(7)
    return rng.integers(10, shape.config["vocab_size"], size=(count, length), dtype=np.int64)


def encoder_batch(shape: ModelShape) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    mask = np.arange(max(shape.lengths))[None, :] < np.asarray(shape.lengths)[:, None]
    return np.where(mask, prompts(shape, *mask.shape), 0), mask


def machine_limits(device: str) -> dict[str, float]:
    """By torch: bytes read and written a second by a copy within the device, and operations a
    second of a product of large matrices in bf16."""
    import torch

    on_gpu = device != "cpu"
    n_bytes = COPY_BYTES if on_gpu else SMALL_COPY_BYTES
    width = DENSE_WIDTH if on_gpu else SMALL_DENSE_WIDTH
    source = torch.ones(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = (torch.randn(width, width, device=device, dtype=torch.bfloat16) for _ in range(2))

    def timed(run: Callable[[], Any], repeat: int) -> float:
        def all_of_them() -> None:
            for _ in range(repeat):
                run()
            if on_gpu:
                torch.cuda.synchronize()

        return median(seconds(all_of_them)) / repeat

    return {
        "copy_bytes_per_s": 2 * n_bytes / timed(lambda: target.copy_(source), 10),
        "dense_flops": 2 * width**3 / timed(lambda: torch.mm(a, b), 10),
    }
