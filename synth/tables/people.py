"""People: how many there are, in all and in each class, by least squares from everything that was noised.

Everybody is in one cell of every column. So the sum of each column's histogram is the number of people, with noise of
its own; of many columns together they say it far better than the class sizes alone. It decides how fine the bins are.
"""

from __future__ import annotations

import math

import numpy as np

from synth.tables.bins import project_to_simplex
from synth.tables.blocks import NONE
from synth.tables.measurements import FloatArray, Measurements


def class_sizes_of(measured: Measurements, public_rows: int | None = None) -> tuple[FloatArray, float]:
    """Class sizes ≥ 0 [classes], and the noise scale of one.

    They sum to what their own sum and the columns say of it, each by its precision, or to the declared row count.

    Args:
        measured: has class sizes with independent noise, fine histograms, and those of runs of cells.
        public_rows: the declared row count, or None when it is private.
    """
    sizes, noise = measured.class_sizes, measured.class_size_noise
    counted, classes = float(sizes.sum()), len(sizes)
    people, variance = people_of_columns(measured)
    weight = variance / (classes * noise**2 + variance)  # of the classes' own sum
    total = max(1.0, weight * counted + (1 - weight) * people)
    sized = project_to_simplex(sizes + (total - counted) / classes, total)
    scale = 1.0 if public_rows is None else public_rows / total
    return sized * scale, noise * math.sqrt(1 - (1 - weight) / classes)


def people_of_columns(measured: Measurements) -> tuple[float, float]:
    """How many people the columns' histograms say there are, and that figure's variance."""
    said = []
    for name, fine in measured.fine.items():
        noise = measured.fine_noise[name]
        sums = [(float(fine.sum()), len(fine) * noise**2)]
        if name in measured.coarse:  # in runs of cells, and those that are in no run
            runs, alone = measured.coarse[name], fine[measured.run_of_cell[name] == NONE]
            variance = len(runs) * measured.coarse_noise[name] ** 2 + len(alone) * noise**2
            sums.append((float(runs.sum() + alone.sum()), variance))
        said.append(min(sums, key=lambda found: found[1]))  # both hold the cells that are in no run: the better one
    people, variances = np.array(said).T
    precision = 1 / variances
    return float(np.average(people, weights=precision)), float(1 / precision.sum())
