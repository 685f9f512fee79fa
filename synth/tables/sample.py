"""Sample: rows of bins from the generator's mixture. Post-processing, free of budget.

Within one class a row picks a latent point, then each column by itself. One sweep then proposes new values from the
row's own distributions and keeps those that bring the table's pair counts nearer to the model's: it removes sampling
noise, and sees nothing but the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

SWEEPS = 2
PROPOSALS_AT_ONCE = 16
ROWS_PER_PROPOSAL = 256
"""Rows that propose together do not see each other and would overshoot: this many at most, one in so many of all."""


def split_by_share(total: int, share: FloatArray, rng: np.random.Generator) -> IntArray:
    """`total` items over groups by `share`: each group gets its expected number, rounded up or down at random."""
    edges = np.concatenate([[0.0], np.cumsum(share / share.sum())]) * total
    edges[-1] = total
    return np.asarray(np.diff(np.floor(edges + (rng.random() if total else 0.0)).clip(max=total)), dtype=np.int64)


def bins_at(
    point: IntArray,
    shares: Float32Array,
    sizes: tuple[int, ...],
    rng: np.random.Generator,
    *,
    factors: Mapping[int, FloatArray] | None = None,
) -> IntArray:
    """Bins of rows whose latent points are known.

    Args:
        point: latent point of each row [rows]; fastest in ascending order.
        shares: column distributions of each latent point [K, D].
        sizes: bins of each column, summing to D.
        rng: randomness of the draw.
        factors: column index → factor on each of its bins' shares.

    Returns:
        Bins [rows, columns].
    """
    rows = len(point)
    bins = np.empty((rows, len(sizes)), dtype=np.int64)
    for j, cumulative in enumerate(cumulatives(shares, sizes, factors or {})):
        # Stratified uniforms: each stretch of [0, 1) is used equally often.
        u = (rng.permutation(rows) + rng.random(rows)) / max(rows, 1)
        bins[:, j] = inverse(cumulative, point, u)
    return bins


def cumulatives(
    shares: Float32Array, sizes: tuple[int, ...], factors: Mapping[int, FloatArray]
) -> Iterator[FloatArray]:
    """Cumulative distribution of each column at each latent point [K, bins], ending in 1."""
    offset = 0
    for j, size in enumerate(sizes):
        block = shares[:, offset : offset + size].astype(np.float64)
        running = np.cumsum(block * factors[j] if j in factors else block, axis=1)
        # Divided to the last digit, so that nothing lies beyond the last bin with a share. A point without any
        # share has no weight either.
        yield running / np.where(running[:, -1:] > 0, running[:, -1:], 1.0)
        offset += size


def inverse(cumulative: FloatArray, point: IntArray, u: FloatArray) -> IntArray:
    """The bin at `u` in [0, 1) of each row's cumulative distribution."""
    points, size = cumulative.shape
    # All points end to end on one line; u stays below 1 after rounding, so that no row ends in the next point.
    line = (cumulative + np.arange(points)[:, None]).ravel()
    found = np.searchsorted(line, point + u * (1 - 1e-9), side="right") - point * size
    return np.asarray(np.clip(found, 0, size - 1), dtype=np.int64)


def draw_points(rows: int, weights: FloatArray, rng: np.random.Generator) -> IntArray:
    """Latent points of `rows` rows by weight [K], in ascending order."""
    return np.repeat(np.arange(len(weights)), split_by_share(rows, weights, rng))


def draw_bins(
    rows: int, shares: Float32Array, weights: FloatArray, sizes: tuple[int, ...], rng: np.random.Generator
) -> IntArray:
    """Bins [rows, columns] from a mixture of product distributions, then a sweep that removes sampling noise.

    Arguments as for `bins_at`, and the weight of each latent point [K], summing to 1. Rows are ordered by point.
    """
    point = draw_points(rows, weights, rng)
    bins = bins_at(point, shares, sizes, rng)
    if rows > 1:
        distributions = list(cumulatives(shares, sizes, {}))
        sweep(
            bins,
            residual_of(bins, shares, weights, sizes),
            sizes,
            lambda j: inverse(distributions[j], point, rng.random(len(bins))),
            rng,
        )
    return bins


def sweep(
    bins: IntArray,
    residual: FloatArray,
    sizes: tuple[int, ...],
    propose: Callable[[int], IntArray],
    rng: np.random.Generator,
    *,
    keep: Callable[[int], None] | None = None,
) -> None:
    """Sweep over columns and rows, keeping proposals that lower the squared residual of the pair counts.

    Args:
        bins: bins of each row [rows, columns], changed in place.
        residual: what `residual_of` has of them [D, D], changed in place: one-way counts on the diagonal, pair counts
            elsewhere, each pair in both orders.
        sizes: bins of each column, summing to D.
        propose: new bins of a column [rows]; a row whose bin is the old one stays.
        rng: the order of columns and rows.
        keep: told of each column when it is done.
    """
    rows, columns = bins.shape
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    width = int(offsets[-1])
    at = bins + offsets[:-1]
    together = max(1, min(PROPOSALS_AT_ONCE, rows // ROWS_PER_PROPOSAL))
    for _ in range(SWEEPS):
        for j in rng.permutation(columns):
            low, high = offsets[j], offsets[j + 1]
            proposed = propose(int(j))
            moving = rng.permutation(np.nonzero(proposed != bins[:, j])[0])
            # Only these rows of the residual are looked at and changed until the column is done.
            own = residual[low:high].ravel()
            diagonal = np.arange(high - low) * (width + 1) + low
            for start in range(0, len(moving), together):
                some = moving[start : start + together]
                rest, old, new = at[some], bins[some, j], proposed[some]
                rest_old, rest_new = rest + (old * width)[:, None], rest + (new * width)[:, None]
                # The column's own place in `rest` is the old value's diagonal cell, and an always empty pair cell.
                gain = own.take(rest_new).sum(axis=1) - own.take(rest_old).sum(axis=1)
                gain += own.take(diagonal[new]) + columns
                better = np.nonzero(gain < 0)[0]
                if not len(better):
                    continue
                some, new = some[better], new[better]
                taken, given = rest_old[better], rest_new[better]
                given[:, j] = diagonal[new]
                np.subtract.at(own, taken.ravel(), 1.0)
                np.add.at(own, given.ravel(), 1.0)
                bins[some, j] = new
                at[some, j] = new + low
            residual[low:high] = own.reshape(high - low, width)
            residual[:, low:high] = residual[low:high].T
            if keep is not None:
                keep(int(j))


def residual_of(bins: IntArray, shares: Float32Array, weights: FloatArray, sizes: tuple[int, ...]) -> FloatArray:
    """Counts of bins less what the mixture expects: one-way on the diagonal, pairs elsewhere, in both orders."""
    rows, columns = bins.shape
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    residual = -rows * (shares.T @ (shares * weights[:, None].astype(np.float32))).astype(np.float64)
    blocks = [slice(offsets[j], offsets[j + 1]) for j in range(columns)]
    for i, block in enumerate(blocks):
        own = np.bincount(bins[:, i], minlength=sizes[i]) - rows * (weights @ shares[:, block])
        residual[block, block] = np.diag(own)
        for j in range(i + 1, columns):
            counts = np.bincount(bins[:, i] * sizes[j] + bins[:, j], minlength=sizes[i] * sizes[j])
            residual[block, blocks[j]] += counts.reshape(sizes[i], sizes[j])
            residual[blocks[j], block] = residual[block, blocks[j]].T
    return np.asarray(residual)
