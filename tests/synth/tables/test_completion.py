"""Completion: exact given the cells that are there, and nothing that is there is changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synth.errors import InvalidSource
from synth.tables import completion
from synth.tables.completion import PartialTable, complete, completed_schema
from synth.tables.model import TableModel

TYPES = {"sex": pa.string(), "grade": pa.int64(), "age": pa.int64(), "died": pa.bool_()}
ROWS = 20_000


def completed(model: TableModel, table: pa.Table, *, seed: int | None = 0) -> pa.Table:
    batches = complete(model, table.schema, iter(table.to_batches(max_chunksize=7000)), seed=seed)
    return pa.Table.from_batches(list(batches), completed_schema(model, table.schema))


@pytest.fixture(scope="module", params=["died", None], ids=["class", "no class"])
def model(tiny: Any, request: pytest.FixtureRequest) -> TableModel:
    return tiny.model(target=request.param)


def partial(held: dict[str, Any], rows: int = ROWS) -> pa.Table:
    """Rows that all hold the same cells; None is an empty one, and columns that are not named are absent."""
    return pa.table({name: pa.array([value] * rows, TYPES[name]) for name, value in held.items()})


class TestFills:
    @pytest.mark.parametrize(
        "held",
        [
            {"sex": "male"},
            {"sex": None, "grade": 2, "age": None},
            {"sex": "female", "grade": None, "age": 4, "died": None},
            {"sex": None, "died": True},
            {"died": False, "age": 2, "grade": None},
        ],
        ids=str,
    )
    def test_follow_the_model_given_the_other_cells(self, tiny: Any, model: TableModel, held: dict[str, Any]) -> None:
        """Every empty cell has a value that is not missing, and jointly they are as the brute force has them."""

        def meets(**row: Any) -> bool:
            return all(row[n] == held[n] if held.get(n) is not None else row[n] is not None for n in row)

        expected = tiny.given(model, lambda *row: meets(**dict(zip(tiny.values, row, strict=True))))
        found = completed(model, partial(held))
        assert found.column_names == list(tiny.values)
        assert tiny.fits(tiny.counted(found), expected)

    def test_each_row_has_its_own_posterior(self, tiny: Any, model: TableModel) -> None:
        tables = [partial({"sex": sex, "age": age}) for sex in ("male", "female") for age in (0, 5, None)]
        every = pa.concat_tables(tables).take(np.random.default_rng(0).permutation(6 * ROWS))
        found = completed(model, every)
        for sex in ("male", "female"):
            for age in (0, 5):
                expected = tiny.given(
                    model, lambda s, g, a, d, sex=sex, age=age: (s, a) == (sex, age) and g is not None
                )
                same = (pa.compute.equal(every["sex"], sex), pa.compute.equal(every["age"], age))
                assert tiny.fits(tiny.counted(found.filter(pa.compute.and_(*same))), expected)

    def test_the_same_seed_gives_the_same_rows(self, model: TableModel) -> None:
        table = partial({"sex": None, "age": 3}, 200)
        assert completed(model, table, seed=1).equals(completed(model, table, seed=1))
        assert not completed(model, table, seed=1).equals(completed(model, table, seed=2))
        assert not completed(model, table, seed=None).equals(completed(model, table, seed=None))

    def test_a_class_without_share_is_no_obstacle(self, tiny: Any) -> None:
        model = tiny.model(class_share=np.array([1.0, 0.0]))
        assert set(completed(model, partial({"died": True}, 20)).column("died").to_pylist()) == {True}


class TestWhatIsThere:
    def test_stays_in_the_declared_types_and_order(self, model: TableModel) -> None:
        table = pa.table(
            {
                "note": ["a", None, "c"],
                "age": pa.array([5.0, np.nan, 0.0]),
                "died": pa.array([0, 1.0, None]),
                "grade": pa.array(["3", "1.0", None]).dictionary_encode(),
                "sex": pa.array(["male", "female", "male"], pa.large_string()),
            }
        ).replace_schema_metadata({"pandas": "secret"})
        found = completed(model, table)
        assert found.schema.metadata is None
        assert found.schema.names == ["sex", "grade", "age", "died", "note"]
        assert found.schema.types == [*TYPES.values(), pa.string()]
        assert found["sex"].to_pylist() == ["male", "female", "male"]
        assert found["grade"].to_pylist()[:2] == [3, 1]
        assert (found["age"][0].as_py(), found["age"][2].as_py()) == (5, 0)
        assert found["died"].to_pylist()[:2] == [False, True]
        assert found["note"].to_pylist() == ["a", None, "c"]
        assert sum(found[name].null_count for name in TYPES) == 0

    def test_is_not_rounded_to_the_declared_decimals(self, hospital_run: Any, untrained: Any) -> None:
        hospital: TableModel = untrained(*hospital_run)
        table = pa.table(
            {
                "income": pa.array([12.345, None]),
                "weight": pa.array([70.123456, 3.5], pa.float32()),
                "admitted": pa.array(["1990-05-17", None]),
                "number": ["P1", None],
            }
        )
        found = completed(hospital, table)
        assert found["income"][0].as_py() == 12.345
        assert found["weight"].to_pylist() == pytest.approx([70.123456, 3.5], rel=1e-7)
        assert str(found["admitted"][0].as_py()) == "1990-05-17 00:00:00"
        assert found["number"].to_pylist() == ["P1", None]  # ids are nobody's to invent
        assert found.column_names == [column.name for column in hospital.schema.columns]
        for name, codec in hospital.codecs.items():
            assert codec.valid(found[name].combine_chunks()).all(), name
            assert found[name].null_count == 0

    def test_absent_ids_are_fresh(self, hospital_run: Any, untrained: Any) -> None:
        found = completed(untrained(*hospital_run), pa.table({"age": list(range(100)) * 80}))
        assert len(set(found["number"].to_pylist())) == 8000

    def test_complete_rows_come_back_as_they_are(self, tiny: Any, model: TableModel) -> None:
        table = pa.table({"sex": ["male"] * 3, "grade": [1, 2, 3], "age": [0, 3, 5], "died": [True, False, True]})
        assert completed(model, table).cast(table.schema).equals(table)

    def test_a_code_for_a_missing_value_is_an_empty_cell(self, model: TableModel) -> None:
        columns = tuple(c.model_copy(update={"missing_codes": ("?", 9)}) for c in model.schema.columns)
        coded = dataclasses.replace(model, schema=model.schema.model_copy(update={"columns": columns}))
        held = {"sex": "?", "grade": 9, "age": 4, "died": True}
        empty = {**held, "sex": None, "grade": None}
        assert completed(coded, partial(held, 50)).equals(completed(model, partial(empty, 50)))

    def test_no_rows(self, model: TableModel) -> None:
        assert completed(model, partial({"sex": "male"}, 0)).num_rows == 0


class TestPartialTables:
    def write(self, folder: Path, table: pa.Table) -> Path:
        pq.write_table(table, folder / "partial.parquet")
        return folder / "partial.parquet"

    def test_stream(self, model: TableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(completion, "BATCH_ROWS", 64)
        path = self.write(tmp_path, partial({"sex": "male", "age": None}, 150))
        table = PartialTable(path, model)
        assert (table.rows, table.schema.names) == (150, ["sex", "age"])
        sizes = []

        def watched() -> Iterator[pa.RecordBatch]:
            for batch in table.batches():
                sizes.append(batch.num_rows)
                yield batch

        stream = complete(model, table.schema, watched(), seed=0)
        assert next(stream).num_rows == 64
        assert sizes == [64], "a batch is written before the next is read"
        assert [64, *(batch.num_rows for batch in stream)] == [64, 64, 22]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, "cannot be read"),
            (b"junk", "is not a Parquet file"),
            ({"note": ["x"]}, "has none of the model's columns (sex, grade, age, died)"),
            ({"age": ["5"], "sex": [1.5]}, "column age is string and cannot hold kind integer"),
            ({"age": [[5]]}, "column age is list<element: int64> and cannot hold kind integer"),
        ],
    )
    def test_mistakes_of_the_header(
        self, model: TableModel, tmp_path: Path, content: dict[str, Any] | bytes | None, words: str
    ) -> None:
        path = tmp_path / "partial.parquet"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content:
            self.write(tmp_path, pa.table(content))
        with pytest.raises(InvalidSource) as caught:
            PartialTable(path, model)
        assert words in str(caught.value) and str(caught.value).startswith(str(path))

    @pytest.mark.parametrize("column", [{"sex": ["secret"]}, {"age": [777]}, {"grade": [7]}, {"died": [5]}])
    def test_a_value_outside_its_domain_is_refused_unnamed(self, model: TableModel, column: dict[str, Any]) -> None:
        ((name, (value,)),) = column.items()
        with pytest.raises(InvalidSource) as caught:
            completed(model, pa.table(column))
        assert f"column {name} holds a value outside its declared domain" in str(caught.value)
        assert f"{value}" not in str(caught.value).replace("declared domain (from 0 to 5)", "")
        assert caught.value.__cause__ is None
