"""Count: exact histograms and pair tables of the working file. Exact counts never leave this room's callers.

Counts of parts of the rows add up, so workers may go over a part each; noise is added once, by `measure`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from synth.tables.blocks import Block
from synth.tables.workers import HERE, Workers
from synth.working_file import reading

IntArray = npt.NDArray[np.int64]
Codes = Mapping[str, npt.NDArray[np.int32]]
K = TypeVar("K", bound=Hashable)


def read_codes(
    path: Path, keys: Sequence[str], part: int = 0, parts: int = 1
) -> Iterator[dict[str, npt.NDArray[np.int32]]]:
    """The codes of the named blocks, a batch of rows at a time, memory-mapped: of all rows, or of one part of them."""
    with reading(path, keys) as reader:
        batches = reader.num_record_batches
        for i in range(part * batches // parts, (part + 1) * batches // parts):
            batch = reader.get_batch(i)
            yield {key: batch.column(key).to_numpy() for key in keys}


@dataclass(frozen=True)
class Part:
    """One part of a working file's rows: a path and two numbers that say nothing of the rows."""

    path: Path
    keys: tuple[str, ...]
    number: int = 0
    parts: int = 1

    def __iter__(self) -> Iterator[Codes]:
        return read_codes(self.path, self.keys, self.number, self.parts)


@dataclass(frozen=True)
class WorkingFile:
    """The named blocks of a working file: batch by batch, or counted by workers part by part."""

    path: Path
    keys: tuple[str, ...]
    workers: Workers = HERE

    def __iter__(self) -> Iterator[Codes]:
        return read_codes(self.path, self.keys)

    @property
    def parts(self) -> list[Part]:
        """The parts; each row is in one of them."""
        parts = self.workers.parts
        return [Part(self.path, self.keys, number, parts) for number in range(parts)]


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
    count = partial(_histograms, blocks=tuple(blocks), class_key=class_key, class_of_cell=class_of_cell)
    return _added(count, batches)


def _histograms(
    batches: Iterable[Codes], *, blocks: Sequence[Block], class_key: str | None, class_of_cell: IntArray
) -> dict[str, IntArray]:
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
    count = partial(_binned, bin_of_cell=dict(bin_of_cell), class_key=class_key, class_of_cell=class_of_cell)
    return _added(count, batches)


def _binned(
    batches: Iterable[Codes], *, bin_of_cell: Mapping[str, IntArray], class_key: str | None, class_of_cell: IntArray
) -> dict[str, IntArray]:
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
    count = partial(
        _pairs, pairs=tuple(pairs), bin_of_cell=dict(bin_of_cell), class_key=class_key, class_of_cell=class_of_cell
    )
    return _added(count, batches)


def _pairs(
    batches: Iterable[Codes],
    *,
    pairs: Sequence[tuple[str, str]],
    bin_of_cell: Mapping[str, IntArray],
    class_key: str | None,
    class_of_cell: IntArray,
) -> dict[tuple[str, str], IntArray]:
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


def count_triples(
    batches: Iterable[Codes],
    *,
    triples: Sequence[tuple[str, str, str]],
    group_of_cell: Mapping[str, IntArray],
) -> dict[tuple[str, str, str], IntArray]:
    """Tables of three columns over all classes: triple of column names → [groups of each]."""
    return _added(partial(_triples, triples=tuple(triples), group_of_cell=dict(group_of_cell)), batches)


def _triples(
    batches: Iterable[Codes], *, triples: Sequence[tuple[str, str, str]], group_of_cell: Mapping[str, IntArray]
) -> dict[tuple[str, str, str], IntArray]:
    size = {name: int(lookup.max()) + 1 for name, lookup in group_of_cell.items()}
    counts = {key: np.zeros(math.prod(size[name] for name in key), dtype=np.int64) for key in triples}
    for batch in batches:
        code = {name: lookup[batch[f"cells:{name}"]] for name, lookup in group_of_cell.items()}
        pair, joint = None, np.empty(0, dtype=np.int64)
        for (a, b, c), table in counts.items():
            if pair != (a, b):  # triples come in order, so that many have their first two columns in common
                pair, joint = (a, b), code[a] * size[b] + code[b]
            table += np.bincount(joint * size[c] + code[c], minlength=len(table))
    return {key: table.reshape([size[name] for name in key]) for key, table in counts.items()}


def _added(count: Callable[[Iterable[Codes]], dict[K, IntArray]], batches: Iterable[Codes]) -> dict[K, IntArray]:
    """Exact counts of all rows: of one part, or of several added up. A part is added once, however often it was tried.

    Whatever is no working file is one part, for this process.
    """
    workers, parts = (batches.workers, batches.parts) if isinstance(batches, WorkingFile) else (HERE, [batches])
    counts: dict[K, IntArray] = {}
    for _, found in zip(parts, workers.map(count, parts), strict=True):
        counts = {key: counts[key] + table for key, table in found.items()} if counts else found
    return counts


def _class_of(batch: Codes, class_key: str | None, class_of_cell: IntArray) -> IntArray:
    if class_key is None:
        return np.zeros(len(next(iter(batch.values()))), dtype=np.int64)
    return class_of_cell[batch[class_key]]
