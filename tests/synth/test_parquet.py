"""Synthetic rows on disk: whole files, explicit schema, replaced metadata."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synth import parquet
from synth.errors import UserError
from synth.parquet import synthetic_metadata, write_file, write_parts

SCHEMA = pa.schema([pa.field("a", pa.int64(), nullable=False), pa.field("b", pa.string())])
MARK = synthetic_metadata(epsilon=1.0, delta=1e-5, privacy_unit="row", run_id="toy-1", schema_sha256="ab" * 32)


def batch(rows: int, start: int = 0) -> pa.RecordBatch:
    named = SCHEMA.with_metadata({b"pandas": b"secret", b"where": b"/home/secret"})
    return pa.record_batch([list(range(start, start + rows)), [None] * rows], schema=named)


def test_the_file_says_that_it_is_synthetic_and_under_which_guarantee(tmp_path: Path) -> None:
    assert write_file([batch(3), batch(2, 3)], SCHEMA, tmp_path / "a.parquet", MARK) == 5
    read = pq.read_table(tmp_path / "a.parquet")
    assert read.schema.equals(SCHEMA)
    assert read.column("a").to_pylist() == [0, 1, 2, 3, 4]
    assert {k.decode(): v.decode() for k, v in read.schema.metadata.items()} == {
        "synthetic": "true",
        "digital_source_type": parquet.DIGITAL_SOURCE_TYPE,
        "epsilon": "1.0",
        "delta": "1e-05",
        "privacy_unit": "row",
        "run": "toy-1",
        "schema_sha256": "ab" * 32,
    }
    assert b"secret" not in (tmp_path / "a.parquet").read_bytes()


def test_its_owner_alone_can_read_it(tmp_path: Path) -> None:
    write_file([batch(1)], SCHEMA, tmp_path / "a.parquet", MARK)
    assert stat.S_IMODE((tmp_path / "a.parquet").stat().st_mode) == 0o600


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[pa.RecordBatch]:
        yield batch(1)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_file(failing(), SCHEMA, tmp_path / "a.parquet", MARK)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        write_file([batch(1)], SCHEMA, tmp_path / "no" / "a.parquet", MARK)


@pytest.mark.parametrize(("sizes", "parts"), [([], [0]), ([3], [3]), ([2, 2], [4]), ([2, 2, 2, 2, 1], [4, 4, 1])])
def test_a_new_part_when_one_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], parts: list[int]
) -> None:
    monkeypatch.setattr(parquet, "ROWS_IN_PART", 4)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    names = write_parts((batch(n, s) for n, s in zip(sizes, starts, strict=True)), SCHEMA, tmp_path, MARK)
    assert names == [f"part-{i:05d}.parquet" for i in range(len(parts))]
    tables = [pq.read_table(tmp_path / name) for name in names]
    assert [table.num_rows for table in tables] == parts
    assert pa.concat_tables(tables).column("a").to_pylist() == list(range(sum(sizes)))
    assert all(json.loads(table.schema.metadata[b"synthetic"]) for table in tables)
