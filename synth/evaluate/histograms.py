"""Histograms of encoded rows on bins, one and several columns at a time, a batch after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Codes = Mapping[str, npt.NDArray[np.int32]]


def histograms(
    batches: Iterable[Codes], lookup: Mapping[str, IntArray], groups: Sequence[tuple[str, ...]]
) -> dict[tuple[str, ...], IntArray]:
    """How many rows lie in each bin: group of columns → [product of the columns' bins], the last column fastest.

    Args:
        batches: codes by block key ("cells:" and the column's name).
        lookup: column → bin of each of its cells.
        groups: columns that are counted together.
    """
    size = {name: int(table.max()) + 1 for name, table in lookup.items()}
    dense = {group: np.zeros(int(np.prod([size[n] for n in group])), dtype=np.int64) for group in groups}
    names = {name for group in groups for name in group}
    for batch in batches:
        code = {name: lookup[name][batch[f"cells:{name}"]] for name in names}
        for group, counts in dense.items():
            key = np.zeros(len(code[group[0]]), dtype=np.int64)
            for name in group:
                key = key * size[name] + code[name]
            counts += np.bincount(key, minlength=len(counts))
    return dense
