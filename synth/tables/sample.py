"""Sample: rows of bins from the generator's mixture. Post-processing, free of budget.

Within one class a row picks a latent point, then each column by itself. One sweep then proposes new values from the
row's own distributions and keeps those that bring the table's pair counts nearer to the model's: it removes sampling
noise, and sees nothing but the model.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

SWEEPS = 2
PROPOSALS_AT_ONCE = 64
"""Rows that propose together, at most, and at most this part of all: they do not see each other and would overshoot."""


def split_by_share(total: int, share: FloatArray, rng: np.random.Generator) -> IntArray:
    """`total` items over groups by `share`: each group gets its expected number, rounded up or down at random."""
    edges = np.concatenate([[0.0], np.cumsum(share / share.sum())]) * total
    edges[-1] = total
    return np.asarray(np.diff(np.floor(edges + (rng.random() if total else 0.0)).clip(max=total)), dtype=np.int64)


def draw_bins(
    rows: int,
    shares: Float32Array,
    weights: FloatArray,
    sizes: tuple[int, ...],
    rng: np.random.Generator,
    *,
    fixed: dict[int, int] | None = None,
) -> IntArray:
    """Bins of `rows` rows from one mixture of product distributions.

    Args:
        rows: number of rows.
        shares: column distributions of each latent point [K, D].
        weights: weight of each latent point [K], summing to 1.
        sizes: bins of each column, summing to D.
        rng: randomness of the draw.
        fixed: column index → bin that every row takes.

    Returns:
        Bins [rows, columns].
    """
    point = np.repeat(np.arange(len(weights)), split_by_share(rows, weights, rng))
    rng.shuffle(point)
    offsets = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    cumulative = [
        np.cumsum(shares[:, o : o + s], axis=1, dtype=np.float64) for o, s in zip(offsets, sizes, strict=True)
    ]
    bins = np.empty((rows, len(sizes)), dtype=np.int64)
    for j in range(len(sizes)):
        # Stratified uniforms: each stretch of [0, 1) is used equally often.
        u = (rng.permutation(rows) + rng.random(rows)) / max(rows, 1)
        bins[:, j] = _inverse(cumulative[j], point, u)
    for j, bin_ in (fixed or {}).items():
        bins[:, j] = bin_
    free = [j for j in range(len(sizes)) if j not in (fixed or {})]
    if rows > 1 and free and not fixed:
        _refine(bins, point, shares, weights, cumulative, offsets, rng)
    return bins


def _inverse(cumulative: FloatArray, point: IntArray, u: FloatArray) -> IntArray:
    rows = cumulative[point]
    found = (u[:, None] * rows[:, -1:] >= rows).sum(axis=1)
    return np.asarray(np.minimum(found, rows.shape[1] - 1))


def _refine(
    bins: IntArray,
    point: IntArray,
    shares: Float32Array,
    weights: FloatArray,
    cumulative: list[FloatArray],
    offsets: IntArray,
    rng: np.random.Generator,
) -> None:
    """Sweep over columns and rows, keeping proposals that lower the squared residual of the pair counts."""
    rows, columns = bins.shape
    width = shares.shape[1]
    at = bins + offsets
    residual = -rows * (shares.T @ (shares * weights[:, None].astype(np.float32))).astype(np.float64)
    for j in range(columns):
        block = slice(offsets[j], offsets[j] + cumulative[j].shape[1])
        residual[block, block] = 0.0
        residual[np.arange(width)[block], np.arange(width)[block]] = -rows * (weights @ shares[:, block])
    flat = residual.reshape(-1)
    for i in range(columns):
        for j in range(i, columns):
            np.add.at(flat, at[:, i] * width + at[:, j], 1.0)
            if i != j:
                np.add.at(flat, at[:, j] * width + at[:, i], 1.0)
    together = max(1, min(PROPOSALS_AT_ONCE, rows // 64))
    for _ in range(SWEEPS):
        for j in rng.permutation(columns):
            others = [i for i in range(columns) if i != j]
            order = rng.permutation(rows)
            for start in range(0, rows, together):
                some = order[start : start + together]
                old = at[some, j]
                new = _inverse(cumulative[j], point[some], rng.random(len(some))) + offsets[j]
                rest = at[some][:, others]
                gain = (residual[new[:, None], rest] - residual[old[:, None], rest] + 1.0).sum(axis=1)
                gain += residual[new, new] - residual[old, old] + 1.0
                keep = (gain < 0) & (new != old)
                if not keep.any():
                    continue
                old, new, rest, some = old[keep], new[keep], rest[keep], some[keep]
                for cell, sign in ((old, -1.0), (new, 1.0)):
                    np.add.at(residual, (cell[:, None], rest), sign)
                    np.add.at(residual, (rest, cell[:, None]), sign)
                    np.add.at(residual, (cell, cell), sign)
                at[some, j] = new
    bins[:] = at - offsets
