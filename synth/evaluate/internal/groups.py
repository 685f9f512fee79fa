"""Groups of values for marginals: numbers cut at the real rows' quantiles, levels as they are, missing apart.

The cuts follow from real rows, so they stay in memory: the report shows distances only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from synth.tables.codec import Codec, OrderedCodec

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

QUANTILES = 20
MOST_LEVELS = 50


class Groups:
    """Group numbers of a matrix of rows; fitted to the real rows.

    Args:
        real: [rows, columns], NaN where missing.
        codecs: codecs of the columns, in order.
    """

    def __init__(self, real: FloatArray, codecs: Mapping[str, Codec]) -> None:
        self.names = tuple(codecs)
        self._cuts: list[FloatArray | None] = []
        self._kept: list[IntArray] = []
        sizes = []
        for i, codec in enumerate(codecs.values()):
            known = real[~np.isnan(real[:, i]), i]
            if isinstance(codec, OrderedCodec):
                cuts = np.unique(np.quantile(known, np.linspace(0, 1, QUANTILES + 1)[1:-1])) if len(known) else known
                self._cuts.append(cuts)
                self._kept.append(np.empty(0, dtype=np.int64))
                sizes.append(len(cuts) + 2)  # between the cuts, and missing
            else:
                count = np.bincount(known.astype(np.int64), minlength=len(codec.levels))
                order = np.argsort(-count, kind="stable")
                group = np.minimum(np.argsort(order, kind="stable"), MOST_LEVELS)  # rare levels share the last group
                self._cuts.append(None)
                self._kept.append(group.astype(np.int64))
                sizes.append(int(group.max()) + 2)
        self.sizes = tuple(sizes)

    def of(self, matrix: FloatArray) -> IntArray:
        """Group numbers [rows, columns]; the last of each column is missing."""
        groups = np.empty(matrix.shape, dtype=np.int64)
        for i, (cuts, kept) in enumerate(zip(self._cuts, self._kept, strict=True)):
            lost = np.isnan(matrix[:, i])
            known = np.where(lost, 0, matrix[:, i])
            found = np.searchsorted(cuts, known, side="right") if cuts is not None else kept[known.astype(np.int64)]
            groups[:, i] = np.where(lost, self.sizes[i] - 1, found)
        return groups

    def table(self, groups: IntArray, columns: Sequence[int]) -> IntArray:
        """Counts of the joint groups of some columns, flat."""
        key = np.zeros(len(groups), dtype=np.int64)
        for i in columns:
            key = key * self.sizes[i] + groups[:, i]
        return np.bincount(key, minlength=int(np.prod([self.sizes[i] for i in columns])))
