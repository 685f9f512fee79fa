"""Count: exact histograms and pair tables of the working file. Exact counts never leave this room's callers.

Counts of parts of the rows add up, so a pass may be split; noise is added once, by `measure`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.tables.blocks import Block

IntArray = npt.NDArray[np.int64]
Codes = Mapping[str, npt.NDArray[np.int32]]


def read_codes(path: Path, keys: Sequence[str]) -> Iterator[dict[str, npt.NDArray[np.int32]]]:
    """The codes of the named blocks, a batch of rows at a time, memory-mapped."""
    with pa.memory_map(str(path)) as stream:
        reader = pa.ipc.open_file(stream)
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            yield {key: batch.column(key).to_numpy() for key in keys}


def count_histograms(
    batches: Iterable[Codes], *, blocks: Sequence[Block], class_key: str | None, class_of_cell: IntArray
) -> dict[str, IntArray]:
    """Histograms of blocks over all classes: block key → [size], and "class" → [classes].

    Args:
        batches: codes by block key; code -1 is not counted.
        blocks: what is counted.
        class_key: the block that holds the target's cells; None when there is no target.
        class_of_cell: class of each target cell; [0] without a target.
    """
    classes = int(class_of_cell.max()) + 1
    counts = {block.key: np.zeros(block.size, dtype=np.int64) for block in blocks}
    counts["class"] = np.zeros(classes, dtype=np.int64)
    for batch in batches:
        counts["class"] += np.bincount(_class_of(batch, class_key, class_of_cell), minlength=classes)
        for block in blocks:
            code = batch[block.key]
            counts[block.key] += np.bincount(code[code >= 0], minlength=block.size)
    return counts


def count_binned(
    batches: Iterable[Codes],
    *,
    bin_of_cell: Mapping[str, IntArray],
    class_key: str | None,
    class_of_cell: IntArray,
) -> dict[str, IntArray]:
    """Histograms of bins within every class: column → [classes, bins]."""
    classes = int(class_of_cell.max()) + 1
    size = {name: int(lookup.max()) + 1 for name, lookup in bin_of_cell.items()}
    counts = {name: np.zeros(classes * bins, dtype=np.int64) for name, bins in size.items()}
    for batch in batches:
        label = _class_of(batch, class_key, class_of_cell)
        for name, lookup in bin_of_cell.items():
            joint = label * size[name] + lookup[batch[f"cells:{name}"]]
            counts[name] += np.bincount(joint, minlength=len(counts[name]))
    return {name: count.reshape(classes, size[name]) for name, count in counts.items()}


def count_pairs(
    batches: Iterable[Codes],
    *,
    pairs: Sequence[tuple[str, str]],
    bin_of_cell: Mapping[str, IntArray],
    class_key: str | None,
    class_of_cell: IntArray,
) -> dict[tuple[str, str], IntArray]:
    """Two-way tables within every class: pair of column names → [classes, bins of first, bins of second]."""
    classes = int(class_of_cell.max()) + 1
    size = {name: int(lookup.max()) + 1 for name, lookup in bin_of_cell.items()}
    counts = {(a, b): np.zeros(classes * size[a] * size[b], dtype=np.int64) for a, b in pairs}
    for batch in batches:
        label = _class_of(batch, class_key, class_of_cell)
        code = {name: lookup[batch[f"cells:{name}"]] for name, lookup in bin_of_cell.items()}
        first = {a: (label * size[a] + code[a]) for a in {a for a, _ in pairs}}
        for (a, b), table in counts.items():
            table += np.bincount(first[a] * size[b] + code[b], minlength=len(table))
    return {(a, b): table.reshape(classes, size[a], size[b]) for (a, b), table in counts.items()}


def _class_of(batch: Codes, class_key: str | None, class_of_cell: IntArray) -> IntArray:
    if class_key is None:
        return np.zeros(len(next(iter(batch.values()))), dtype=np.int64)
    return class_of_cell[batch[class_key]]
