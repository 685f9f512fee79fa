"""Independent columns: the whole budget on one-way histograms, by one Gaussian mechanism."""

from __future__ import annotations

import numpy as np
import pandas as pd
from exchange import read_task

from synth.privacy.accounting import mu_of
from synth.tables.denoise import denoise

WIDE = 64  # histograms that are worth smoothing


def main() -> None:
    """Measure, clean and draw each column by itself. The noise is seeded: for benchmarks alone."""
    task = read_task()
    rng = np.random.default_rng(task.seed)
    noise = np.sqrt(len(task.columns)) / mu_of(task.epsilon, task.delta)
    table, out = task.table(), {}
    for name, size in task.sizes.items():
        counts = np.bincount(table[name], minlength=size) + rng.normal(0, noise, size)
        kept = np.maximum(counts, 0)
        if size > WIDE:
            kept = denoise(counts, float(noise), np.ones(size), max(1.0, float(counts.sum()))).mass
        share = kept / kept.sum() if kept.sum() > 0 else np.full(size, 1 / size)
        out[name] = rng.choice(size, task.rows, p=share)
    task.write(pd.DataFrame(out))


if __name__ == "__main__":
    main()
