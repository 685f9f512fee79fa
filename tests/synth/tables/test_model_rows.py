"""The released model and the rows drawn from it: exact types, fresh ids, and exact conditions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from synth.errors import UserError, VerificationFailed
from synth.files import canonical_json
from synth.model_files import CONFIG_FILE, WEIGHTS_FILE
from synth.schema import Schema, parse_schema
from synth.tables import rows as rows_module
from synth.tables.codec import Codec, OrderedCodec
from synth.tables.conditions import parse_conditions as parsed
from synth.tables.measurements import Measurements
from synth.tables.model import TableModel
from synth.tables.pieces import Region
from synth.tables.posterior import posterior_of
from synth.tables.rows import sample_rows


def parse_conditions(model: TableModel, texts: list[str]) -> dict[str, Region]:
    return parsed(model.codecs, texts)


def cell_of(codec: Codec, region: Region) -> int:
    """The cell of a region of a single value."""
    if region.missing:
        assert codec.missing is not None
        return codec.missing
    position = region.intervals[0, 0]
    return int(codec.lattice.cell_of(np.array([position]))[0]) if isinstance(codec, OrderedCodec) else int(position)


def table(model: TableModel, rows: int, **more: Any) -> pa.Table:
    return pa.Table.from_batches(list(sample_rows(model, rows, **more)))


class TestSavedAndLoaded:
    def test_the_same_model(self, model: TableModel, tmp_path: Path) -> None:
        model.save(tmp_path)
        loaded = TableModel.load(tmp_path)
        assert np.array_equal(loaded.shares, model.shares)
        assert np.array_equal(loaded.class_share, model.class_share)
        assert np.array_equal(loaded.class_of_cell, model.class_of_cell)
        assert (loaded.encoding, loaded.target, loaded.rows) == (model.encoding, model.target, model.rows)
        assert (loaded.schema, loaded.parameters) == (model.schema, model.parameters)
        for name, decoder in model.decoders.items():
            assert all(np.array_equal(v, getattr(loaded.decoders[name], k)) for k, v in vars(decoder).items())
        assert table(loaded, 200, seed=3) == table(model, 200, seed=3)

    def test_to_the_same_bytes(self, model: TableModel, tmp_path: Path) -> None:
        for name in ("a", "b"):
            model.save(tmp_path / name)
        TableModel.load(tmp_path / "a").save(tmp_path / "c")
        for file in (WEIGHTS_FILE, CONFIG_FILE):
            assert len({(tmp_path / name / file).read_bytes() for name in "abc"}) == 1
        content = (tmp_path / "a" / CONFIG_FILE).read_bytes()
        assert canonical_json(json.loads(content)) == content

    def test_in_two_files_without_pickle(self, model: TableModel, tmp_path: Path) -> None:
        model.save(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
        assert not (tmp_path / WEIGHTS_FILE).read_bytes().startswith((b"PK", b"\x80"))

    @pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
    @pytest.mark.parametrize("content", [None, b"", b"junk", b"{}", b"[]"])
    def test_what_is_no_model_is_refused(
        self, model: TableModel, tmp_path: Path, file: str, content: bytes | None
    ) -> None:
        model.save(tmp_path)
        (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
        with pytest.raises(VerificationFailed, match="does not hold a table model") as caught:
            TableModel.load(tmp_path)
        assert caught.value.exit_code == 4

    @pytest.mark.parametrize(("key", "value"), [("format", "x"), ("members", 9), ("hidden_size", 9), ("schema", {})])
    def test_so_is_one_that_does_not_fit_together(
        self, model: TableModel, tmp_path: Path, key: str, value: Any
    ) -> None:
        model.save(tmp_path)
        config = json.loads((tmp_path / CONFIG_FILE).read_bytes())
        (tmp_path / CONFIG_FILE).write_bytes(canonical_json({**config, key: value}))
        with pytest.raises(VerificationFailed):
            TableModel.load(tmp_path)


class TestRows:
    def test_have_the_declared_columns_and_types(self, model: TableModel) -> None:
        drawn = table(model, 300, seed=1)
        assert drawn.num_rows == 300
        assert {field.name: str(field.type) for field in drawn.schema} == {
            "number": "string",
            "age": "int64",
            "income": "double",
            "weight": "double",
            "city": "string",
            "dose": "double",
            "smoker": "bool",
            "admitted": "timestamp[us]",
            "died": "bool",
        }

    def test_lie_in_the_declared_domain(self, model: TableModel) -> None:
        drawn = table(model, 2000, seed=2).combine_chunks()
        for name, codec in model.codecs.items():
            column = drawn.column(name).combine_chunks()
            assert codec.valid(column).all(), name
            assert (column.null_count > 0) == codec.column.nullable, name

    def test_numbers_have_their_decimals(self, model: TableModel) -> None:
        incomes = table(model, 500, seed=3).column("income").drop_null().to_pylist()
        assert all(value == float(f"{value:.1f}") for value in incomes)

    @pytest.mark.parametrize("rows", [0, 1, 2, 999])
    def test_as_many_as_were_asked_for(self, model: TableModel, rows: int) -> None:
        assert sum(batch.num_rows for batch in sample_rows(model, rows)) == rows

    def test_ids_are_fresh_and_unique_across_batches(self, model: TableModel, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rows_module, "ROWS_AT_ONCE", 40)
        batches = list(sample_rows(model, 95, seed=0))
        assert [batch.num_rows for batch in batches] == [40, 40, 15]
        ids = pa.Table.from_batches(batches).column("number").to_pylist()
        assert len(set(ids)) == 95
        assert all(value.startswith("number-") for value in ids)

    def test_the_same_seed_gives_the_same_rows(self, model: TableModel) -> None:
        assert table(model, 120, seed=7) == table(model, 120, seed=7)
        assert table(model, 120, seed=7) != table(model, 120, seed=8)
        assert table(model, 120) != table(model, 120)

    def test_classes_have_their_shares(self, model: TableModel) -> None:
        died = table(model, 1000, seed=0).column("died").to_pylist()
        assert sum(died) / 1000 == pytest.approx(model.class_share[1], abs=0.002)

    def test_the_order_tells_nothing_of_the_class(self, model: TableModel) -> None:
        died = np.array(table(model, 2000, seed=0).column("died").to_pylist(), dtype=float)
        assert abs(np.corrcoef(np.arange(2000), died)[0, 1]) < 0.15

    @pytest.mark.parametrize(
        ("names", "target", "person"),
        [
            (("died",), None, ("true",)),
            (("died",), "died", ("true",)),
            (("income",), "income", (None,)),
            (("age", "died"), "age", ("5", "true")),
            (("age", "died"), "died", ("5", "true")),
            (("age", "income", "city"), "income", ("5", None, None)),
            (("number", "smoker", "income"), None, (None, "7")),
            (("stage", "sex"), "stage", (None, "male")),
        ],
    )
    @pytest.mark.parametrize("people", [1, 50])
    def test_of_the_smallest_tables(
        self,
        toy_run: Any,
        untrained: Callable[..., TableModel],
        schema_of: Callable[..., Schema],
        names: tuple[str, ...],
        target: str | None,
        person: tuple[str | None, ...],
        people: int,
    ) -> None:
        """One row, one class, one column, an all-null or constant column, a missing target."""
        run = toy_run(schema_of(*names, target=target), epsilon=3.0)
        _, measured = run.measure([run.codes_of(person, i) for i in range(people)])
        drawn = table(untrained(run, measured, members=1), 40, seed=0)
        assert (drawn.num_rows, drawn.column_names) == (40, list(names))
        for name, codec in run.codecs.items():
            assert codec.valid(drawn.column(name).combine_chunks()).all()


class TestPosterior:
    """Weights of latent points given conditions equal Bayes' rule by enumeration."""

    def by_hand(self, model: TableModel, held: dict[str, int]) -> np.ndarray:
        classes, points, _ = model.shares.shape
        weights = np.zeros((classes, points))
        for c in range(classes):
            for k in range(points):
                value = float(model.class_share[c]) / points
                for name, cell in held.items():
                    if name == model.target and name not in model.encoding.names:
                        value *= float(model.class_of_cell[cell] == c)
                        continue
                    # Given its bin, a value is as likely at every point.
                    place = model.encoding.place(name).start + int(model.decoders[name].bin_of_cell[cell])
                    value *= float(model.shares[c, k, place])
                weights[c, k] = value
        return weights / weights.sum()

    @pytest.mark.parametrize(
        "texts",
        [
            [],
            ["city=Rome"],
            ["died=true"],
            ["city=Rome", "smoker=no"],
            ["income=1000", "city=", "died=false"],
            ["dose=0.5", "age=40", "smoker=", "admitted=1990-05-17", "died=yes"],
        ],
    )
    def test_equals_enumeration(self, model: TableModel, texts: list[str]) -> None:
        conditions = parse_conditions(model, texts)
        weights = posterior_of(model, conditions).weights
        held = {name: cell_of(model.codecs[name], region) for name, region in conditions.items()}
        assert weights == pytest.approx(self.by_hand(model, held), rel=1e-6, abs=1e-12)
        assert weights.sum() == pytest.approx(1)

    def test_the_other_columns_follow_it(self, model: TableModel) -> None:
        conditions = parse_conditions(model, ["city=Rome"])
        weights = posterior_of(model, conditions).weights
        place = model.encoding.place("dose")
        expected = np.einsum("ck,ckb->b", weights, model.shares[:, :, place].astype(float))
        drawn = table(model, 5000, seed=1, conditions=conditions).column("dose").to_pylist()
        found = [drawn.count(level) / 5000 for level in (0.5, 1.0, 2.0)]
        share = expected[model.decoders["dose"].bin_of_cell] * model.decoders["dose"].share
        assert found == pytest.approx(share, abs=0.03)

    def test_any_declared_value_can_be_held_even_one_that_noise_has_wiped_out(self, model: TableModel) -> None:
        for age in range(0, 100, 4):
            assert table(model, 1, conditions=parse_conditions(model, [f"age={age}"])).column("age").to_pylist() == [
                age
            ]

    def test_a_rare_class_is_no_harder_than_a_common_one(self, model: TableModel) -> None:
        drawn = table(model, 400, seed=0, conditions=parse_conditions(model, ["died=true"]))
        assert set(drawn.column("died").to_pylist()) == {True}
        assert len(set(drawn.column("age").to_pylist())) > 5


class TestConditions:
    @pytest.mark.parametrize(
        ("text", "column", "value"),
        [
            ("city=Rome", "city", "Rome"),
            ("city=", "city", None),
            ("age=42", "age", 42),
            (" age = 42.0 ", "age", 42),
            ("income=12.30", "income", 12.3),
            ("income=", "income", None),
            ("weight=70.25", "weight", 70.25),
            ("dose=2.0", "dose", 2.0),
            ("smoker=no", "smoker", False),
            ("died=1", "died", True),
            ("admitted=1990-05-17", "admitted", np.datetime64("1990-05-17").astype("M8[us]").item()),
        ],
    )
    def test_hold_in_every_row(self, model: TableModel, text: str, column: str, value: Any) -> None:
        drawn = table(model, 60, seed=1, conditions=parse_conditions(model, [text]))
        assert drawn.column(column).to_pylist() == [value] * 60
        assert drawn.schema.equals(table(model, 1).schema)

    def test_several_at_once(self, model: TableModel) -> None:
        texts = ["city=Oslo", "died=false", "age=3", "income="]
        drawn = table(model, 30, conditions=parse_conditions(model, texts)).select(["city", "died", "age", "income"])
        assert set(map(tuple, (row.values() for row in drawn.to_pylist()))) == {("Oslo", False, 3, None)}

    @pytest.mark.parametrize(
        ("texts", "words"),
        [
            (["city"], "write COLUMN=VALUE"),
            (["ctiy=Rome"], "not a learned column; did you mean city?"),
            (["number=3"], "not a learned column"),
            (["zzz=3"], "columns are age, income"),
            (["city=Paris"], "outside the declared domain of city (levels Rome, Oslo, other)"),
            (["city=rome"], "outside the declared domain of city"),
            (["age=100"], "outside the declared domain of age (from 0 to 99)"),
            (["age=old"], "outside the declared domain of age"),
            (["age=nan"], "outside the declared domain of age"),
            (["age=inf"], "outside the declared domain of age"),
            (["died=maybe"], "true or false"),
            (["admitted=1988-12-31"], "outside the declared domain of admitted"),
            (["age="], "age is never missing"),
            (["died="], "died is never missing"),
            (["age=5", "age=6"], "--where age=6: contradicts the other conditions on age"),
        ],
    )
    def test_mistakes(self, model: TableModel, texts: list[str], words: str) -> None:
        with pytest.raises(UserError) as caught:
            parse_conditions(model, texts)
        assert words in str(caught.value)
        assert caught.value.exit_code == 2

    def test_what_the_model_never_makes_is_refused(
        self, hospital_run: tuple[Any, Measurements], untrained: Any
    ) -> None:
        model: TableModel = untrained(*hospital_run)
        for member in model.members:
            place = model.encoding.place("city")
            for c, bin_ in ((0, 0), (1, 1)):
                member.class_bias.data[c, place.start + bin_] = -1e4
        cities = [model.decoders["city"].bin_of_cell[i] for i in range(2)]
        assert cities == [0, 1]
        assert table(model, 20, conditions=parse_conditions(model, ["city=Rome", "died=true"])).num_rows == 20
        with pytest.raises(UserError, match="the model holds no such rows"):
            list(sample_rows(model, 5, conditions=parse_conditions(model, ["city=Rome", "died=false"])))

    def test_a_numeric_target_can_be_held(self, toy_run: Any, untrained: Any, schema_of: Callable[..., Schema]) -> None:
        run = toy_run(schema_of("age", "sex", target="age"), epsilon=20.0)
        _, measured = run.measure([run.codes_of((str(i % 100), "male"), i) for i in range(300)])
        model = untrained(run, measured)
        drawn = table(model, 25, conditions=parse_conditions(model, ["age=17"]))
        assert drawn.column("age").to_pylist() == [17] * 25


def test_a_level_with_an_equals_sign(toy_run: Any, untrained: Any) -> None:
    columns = [{"name": "a", "kind": "categorical", "categories": ["x=1", "y"]}, {"name": "b", "kind": "boolean"}]
    run = toy_run(parse_schema({"dataset": "t", "columns": columns}, file="s"), epsilon=20.0)
    _, measured = run.measure([run.codes_of(("x=1", "true"), i) for i in range(50)])
    model = untrained(run, measured)
    assert set(table(model, 5, conditions=parse_conditions(model, ["a=x=1"])).column("a").to_pylist()) == {"x=1"}
