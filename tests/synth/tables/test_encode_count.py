"""The working file, and counts of it that equal a slow loop's."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.errors import InvalidSource
from synth.ingest import read_batches
from synth.schema import Schema
from synth.tables.blocks import NONE, Block
from synth.tables.codec import codecs_of
from synth.tables.count import WorkingFile, count_binned, count_histograms, count_pairs, count_triples, read_codes
from synth.tables.encode import PERSON, encode
from synth.tables.workers import ThisProcess

SchemaOf = Callable[..., Schema]


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.record_batch({name: pa.array(values) for name, values in columns.items()})


def codes(path: Path, *keys: str) -> dict[str, list[int]]:
    read = list(read_codes(path, keys))
    return {key: np.concatenate([part[key] for part in read]).tolist() for key in keys}


class TestEncode:
    def test_codes_of_all_rows_in_order(self, schema_of: SchemaOf, tmp_path: Path) -> None:
        codecs = codecs_of(schema_of("age", "city", "number"))
        batches = [batch(age=[1, 2], city=["Rome", "x"]), batch(age=[], city=[]), batch(age=[300], city=["Oslo"])]
        outside = encode(batches, codecs, tmp_path / "codes")
        assert codes(tmp_path / "codes", "cells:age", "cells:city") == {
            "cells:age": [1, 2, 99],
            "cells:city": [0, 3, 1],
        }
        assert outside == {"age": 1, "city": 1}

    def test_the_working_file_holds_no_value_and_is_private(self, schema_of: SchemaOf, tmp_path: Path) -> None:
        encode([batch(city=["canary-7731", "Rome"])], codecs_of(schema_of("city")), tmp_path / "codes")
        assert b"canary" not in (tmp_path / "codes").read_bytes()
        assert stat.S_IMODE((tmp_path / "codes").stat().st_mode) == 0o600

    @pytest.mark.parametrize("batches", [[], [batch(age=[]), batch(age=[])]])
    def test_no_rows(self, schema_of: SchemaOf, tmp_path: Path, batches: list[pa.RecordBatch]) -> None:
        with pytest.raises(InvalidSource, match="no rows"):
            encode(batches, codecs_of(schema_of("age")), tmp_path / "codes")

    def test_persons_stand_beside_the_rows_that_stay(self, schema_of: SchemaOf, tmp_path: Path) -> None:
        batches = [batch(age=[1, 2, 3]), batch(age=[4]), batch(age=[5, 6])]
        stays = np.array([True, False, True, False, True, True])
        encode(
            batches, codecs_of(schema_of("age")), tmp_path / "codes", stays=stays, persons=np.array([7, 2**40, 7, 0])
        )
        assert codes(tmp_path / "codes", "cells:age", PERSON) == {"cells:age": [1, 3, 5, 6], PERSON: [7, 2**40, 7, 0]}

    def test_random_levels_take_new_entropy(self, schema_of: SchemaOf, tmp_path: Path) -> None:
        codecs = codecs_of(schema_of("age", "income", income={"nullable": False}))
        lost = pa.record_batch({"age": pa.nulls(50, pa.int64()), "income": pa.nulls(50, pa.float64())})
        found = []
        for number in range(2):
            np.random.seed(0)
            encode([lost], codecs, tmp_path / str(number))
            found.append(codes(tmp_path / str(number), "cells:age", "cells:income", "singles:income"))
        assert all(found[0][key] != found[1][key] for key in found[0])
        assert all(0 <= age <= 99 for age in found[0]["cells:age"])

    @pytest.mark.parametrize("rows", [1, 70])
    def test_csv_equals_parquet(self, schema_of: SchemaOf, tmp_path: Path, rows: int) -> None:
        names = ("age", "income", "weight", "sex", "city", "stage", "dose", "died", "smoker", "admitted", "seen")
        schema = schema_of(*names, age={"nullable": True}, sex={"nullable": True})
        rng = np.random.default_rng(rows)
        table = pa.table(
            {
                "age": pa.array([None if x > 110 else int(x) for x in rng.integers(-9, 120, rows)], pa.int64()),
                "income": pa.array([None if x < 0 else x for x in np.round(rng.normal(900, 900, rows), 1)]),
                "weight": rng.uniform(0, 300, rows),
                "sex": pa.array([["female", "male", "x"][i] for i in rng.integers(0, 3, rows)]),
                "city": pa.array([["Rome", "Oslo", None, "Bonn"][i] for i in rng.integers(0, 4, rows)], pa.string()),
                "stage": rng.integers(1, 4, rows).astype(float),
                "dose": np.array([0.5, 1, 2])[rng.integers(0, 3, rows)],
                "died": rng.random(rows) < 0.5,
                "smoker": pa.array([[True, False, None][i] for i in rng.integers(0, 3, rows)], pa.bool_()),
                "admitted": pa.array(rng.integers(6000, 10000, rows), pa.int32()).cast(pa.date32()),
                "seen": pa.array(rng.integers(15e8, 17e8, rows), pa.int64()).cast(pa.timestamp("s")),
            }
        )
        pq.write_table(table, tmp_path / "a.parquet")
        pa.csv.write_csv(table, tmp_path / "a.csv")
        codecs = codecs_of(schema)
        keys = [block.key for codec in codecs.values() for block in codec.blocks]
        found = []
        for name in ("a.parquet", "a.csv"):
            outside = encode(read_batches(tmp_path / name, schema), codecs, tmp_path / "codes")
            found.append((outside, codes(tmp_path / "codes", *keys)))
        assert found[0] == found[1]


COLUMNS = ("a", "b", "c")
SIZES = {"a": 4, "b": 3, "c": 5}
ROWS = st.lists(st.tuples(*(st.integers(0, SIZES[name] - 1) for name in COLUMNS), st.integers(-1, 6)), max_size=40)
BINS = {name: st.lists(st.integers(0, 2), min_size=size, max_size=size) for name, size in SIZES.items()}
CUTS = st.integers(0, 40)


def batches_of(rows: list[tuple[int, ...]], cut: int) -> list[dict[str, np.ndarray]]:
    """The rows as two batches of codes."""
    keys = [*(f"cells:{name}" for name in COLUMNS), "singles:a"]
    parts = (rows[:cut], rows[cut:])
    return [{key: np.array([row[i] for row in part], dtype=np.int32) for i, key in enumerate(keys)} for part in parts]


def lookup(bins: list[int]) -> np.ndarray:
    return np.unique(bins, return_inverse=True)[1]


@pytest.mark.parametrize("classed", [True, False])
class TestCountsEqualALoop:
    def classes(self, classed: bool) -> tuple[str | None, np.ndarray]:
        return ("cells:c", np.array([0, 1, 0, 2, 2])) if classed else (None, np.zeros(1, dtype=np.int64))

    @given(rows=ROWS, cut=CUTS)
    def test_histograms(self, classed: bool, rows: list[tuple[int, ...]], cut: int) -> None:
        key, class_of_cell = self.classes(classed)
        blocks = [Block("a", "cells", 4), Block("b", "cells", 3), Block("a", "singles", 7)]
        counts = count_histograms(batches_of(rows, cut), blocks=blocks, class_key=key, class_of_cell=class_of_cell)
        assert counts["cells:a"].tolist() == [sum(row[0] == x for row in rows) for x in range(4)]
        assert counts["cells:b"].tolist() == [sum(row[1] == x for row in rows) for x in range(3)]
        assert counts["singles:a"].tolist() == [sum(row[3] == x != NONE for row in rows) for x in range(7)]
        label = [class_of_cell[row[2]] if classed else 0 for row in rows]
        assert counts["class"].tolist() == [label.count(c) for c in range(3 if classed else 1)]

    @given(rows=ROWS, cut=CUTS, bins=st.fixed_dictionaries(BINS))
    def test_binned_and_pairs(self, classed: bool, rows: list[tuple[int, ...]], cut: int, bins: dict[str, Any]) -> None:
        key, class_of_cell = self.classes(classed)
        bin_of_cell = {name: lookup(value) for name, value in bins.items()}
        size = {name: int(value.max()) + 1 for name, value in bin_of_cell.items()}
        classes = 3 if classed else 1
        one = {name: np.zeros((classes, size[name]), dtype=int) for name in COLUMNS}
        two = {(a, b): np.zeros((classes, size[a], size[b]), dtype=int) for a, b in itertools.combinations(COLUMNS, 2)}
        for row in rows:
            label = class_of_cell[row[2]] if classed else 0
            bin_ = {name: bin_of_cell[name][row[i]] for i, name in enumerate(COLUMNS)}
            for name in COLUMNS:
                one[name][label, bin_[name]] += 1
            for a, b in two:
                two[a, b][label, bin_[a], bin_[b]] += 1
        batches = batches_of(rows, cut)
        found = count_binned(batches, bin_of_cell=bin_of_cell, class_key=key, class_of_cell=class_of_cell)
        pairs = count_pairs(
            batches, pairs=list(two), bin_of_cell=bin_of_cell, class_key=key, class_of_cell=class_of_cell
        )
        three = np.zeros([int(bin_of_cell[name].max()) + 1 for name in ("a", "b", "c")], dtype=np.int64)
        for row in rows:
            three[tuple(bin_of_cell[name][row[COLUMNS.index(name)]] for name in ("a", "b", "c"))] += 1
        triples = count_triples(batches, triples=[("a", "b", "c")], group_of_cell=bin_of_cell)
        assert np.array_equal(triples["a", "b", "c"], three)
        assert all(np.array_equal(found[name], one[name]) for name in COLUMNS)
        assert all(np.array_equal(pairs[pair], two[pair]) for pair in two)
        assert {array.dtype for array in (*found.values(), *pairs.values())} == {np.dtype(np.int64)}


class TestPartsAddUp:
    @given(batches=st.lists(ROWS, max_size=6), parts=st.integers(1, 9))
    def test_any_parts_are_the_whole(
        self, batches: list[list[tuple[int, ...]]], parts: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path, keys = tmp_path_factory.getbasetemp() / "parts.arrow", ("cells:a", "cells:b", "cells:c", "singles:a")
        every = [batches_of(rows, len(rows))[0] for rows in batches]
        schema = pa.schema([(key, pa.int32()) for key in keys])
        with path.open("wb") as stream, pa.ipc.new_file(stream, schema) as file:
            for batch in every:
                file.write_batch(pa.record_batch([pa.array(batch[key]) for key in keys], schema=schema))
        split = WorkingFile(path, keys, ThisProcess(parts))
        assert len(split.parts) == parts
        assert [len(b["cells:a"]) for part in split.parts for b in part] == [len(b["cells:a"]) for b in every]
        bins = {name: np.arange(size) for name, size in SIZES.items()}
        how: dict[str, Any] = {"class_key": "cells:c", "class_of_cell": np.array([0, 1, 0, 2, 2])}
        blocks = [Block("a", "cells", 4), Block("a", "singles", 7)]
        passes: list[Any] = [
            partial(count_histograms, blocks=blocks, **how),
            partial(count_binned, bin_of_cell=bins, **how),
            partial(count_pairs, pairs=[("a", "b"), ("b", "c")], bin_of_cell=bins, **how),
            partial(count_triples, triples=[("a", "b", "c")], group_of_cell=bins),
        ]
        for count in passes:
            whole, added = count(every), count(split)
            assert list(whole) == list(added)
            assert all(np.array_equal(whole[key], added[key]) for key in whole)


class TestOneHot:
    """The sensitivity argument: a person is in one cell of a histogram, at most."""

    @given(data=st.data())
    def test_one_person_one_cell(self, hospital: Schema, patients: list[Any], data: st.DataObject) -> None:
        codecs = codecs_of(hospital)
        person = data.draw(st.sampled_from(patients))
        for codec, cell in zip(codecs.values(), person, strict=True):
            encoded = codec.encode(pa.array([cell], pa.string()), np.random.default_rng(0))
            for block in codec.blocks:
                assert len(encoded.codes[block.key]) == 1
                assert (NONE if block.role != "cells" else 0) <= encoded.codes[block.key][0] < block.size
