"""Parts of decoders in float64 NumPy, and how our models are compared with them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def float64(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float64) for name, array in weights.items()}


def softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def rotate(x: np.ndarray, width: int, base: float) -> np.ndarray:
    """x [seq, heads, head_width]; the first `width` features by halves."""
    angles = np.outer(np.arange(len(x)), base ** (-np.arange(0, width, 2) / width))[:, None]
    a, b, rest = x[..., : width // 2], x[..., width // 2 : width], x[..., width:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1)


def alibi_slopes(n_heads: int, max_bias: float = 8) -> np.ndarray:
    """Press et al. 2021: a geometric row for a power of two heads; more heads take every other
    member of the row for twice as many."""
    power = 2 ** int(np.log2(n_heads))
    row = [2 ** (-max_bias * (i + 1) / power) for i in range(power)]
    finer = [2 ** (-max_bias * (i + 1) / (2 * power)) for i in range(2 * power)]
    return np.array(row + finer[::2][: n_heads - power])


def attend(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float | None = None, bias: Any = 0.0
) -> np.ndarray:
    """q [seq, heads, width]; k and v may have fewer heads. `bias` [heads, queries, keys] is added
    after scaling."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scores = np.einsum("qhd,khd->hqk", q, k) * (scale or 1 / np.sqrt(q.shape[-1])) + bias
    scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
    return np.einsum("hqk,khd->qhd", softmax(scores), v).reshape(len(q), -1)


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: Any = 0.0, eps: float = 1e-5) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def check(model: Any, expected: np.ndarray, ids: np.ndarray, columns: bool = True) -> None:
    """Logits of ids, alone and behind left padding with two of them through the cache. Positions
    are left to the columns, or given for a table that is read by them.

    f32 sums of some dozen terms in a few layers are 1e-6 of the largest logit apart.
    """
    logits = np.asarray(model(ids[None]).logits)[0]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-5)
    padded = np.concatenate([[0, 0, 0], ids])[None]
    mask = np.arange(padded.shape[1])[None] >= 3
    positions = None if columns else np.maximum(np.arange(padded.shape[1]) - 3, 0)[None]
    parts = (None, None) if positions is None else (positions[:, :-2], positions[:, -2:])
    first = model(padded[:, :-2], mask[:, :-2], positions=parts[0], store_cache=True)
    rest = model(padded[:, -2:], mask, positions=parts[1], cache=first.cache)
    np.testing.assert_allclose(np.asarray(rest.logits)[0] / scale, expected[-2:] / scale, atol=1e-5)
    assert not np.asarray(first.logits)[0, :3].any()
