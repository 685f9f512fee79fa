"""`synth sample` as a user types it: conditions, asked shares, and tables completed."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from synth.schema import parse_schema, public_yaml
from synth.tables.codec import codecs_of
from synth.tables.decode import ColumnDecoder
from synth.tables.likelihood import log_likelihood
from synth.tables.model import TableModel, new_generator
from synth.tables.targets import Encoding

BINS = 12
COLUMNS: list[dict[str, Any]] = [
    {"name": "patient_nbr", "kind": "id"},
    {"name": "age", "kind": "integer", "bounds": [18, 90]},
    {"name": "bmi", "kind": "continuous", "bounds": [10, 60], "decimals": 1, "nullable": True},
    {"name": "sex", "kind": "categorical", "categories": ["female", "male"]},
    {"name": "ward", "kind": "categorical", "categories": ["north", "south|east"], "nullable": True},
    {"name": "admitted", "kind": "datetime", "bounds": ["2015-01-01", "2021-01-01"], "resolution": "day"},
    {"name": "died", "kind": "boolean"},
]
CANARY = 8675309


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as far as sampling looks at it: a model that was never trained, and a privacy statement."""
    folder = tmp_path_factory.mktemp("made") / "bundle"
    folder.mkdir()
    schema = parse_schema({"dataset": "clinic", "target": "died", "columns": COLUMNS}, file="s")
    decoders = {}
    for name, codec in codecs_of(schema).items():
        if name != "died":
            home = np.arange(codec.size) * min(BINS, codec.size) // codec.size
            none = np.empty(0)
            decoders[name] = ColumnDecoder(home, 1 / np.bincount(home)[home], none, none, none)
    sizes = tuple(int(decoder.bin_of_cell.max()) + 1 for decoder in decoders.values())
    member = new_generator(classes=2, sizes=sizes, latent_points=8, latent_size=4, hidden_size=8, seed=0)
    TableModel(
        schema=schema,
        encoding=Encoding(tuple(decoders), sizes),
        target="died",
        class_share=np.array([0.999, 0.001]),
        class_of_cell=np.arange(2),
        decoders=decoders,
        members=(member.eval(),),
        rows=400,
    ).save(folder / "model")
    claims = {"epsilon": 1.0, "delta": 1e-5, "privacy_unit": "row", "run": "clinic-1"}
    (folder / "privacy.json").write_text(json.dumps({"x_synth": claims}))
    (folder / "manifest.json").write_text("{}")
    (folder / "schema.yaml").write_text(public_yaml(schema))
    return folder


@pytest.fixture
def draw(bundle: Path, synth: Any, tmp_path: Path) -> Callable[..., pa.Table]:
    """Rows of a command that succeeds."""

    def call(*options: object) -> pa.Table:
        outcome = synth("sample", bundle, "-o", tmp_path / "rows.parquet", *options)
        assert outcome.code == 0, outcome.err
        assert outcome.out == f"{tmp_path / 'rows.parquet'}\n"
        return pq.read_table(tmp_path / "rows.parquet")

    return call


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """A partial table: cells empty, a column absent, one of its own, and pandas' metadata."""
    table = pa.table(
        {
            "record": [f"C{CANARY}", "C2", "C3"],
            "age": pa.array([40, None, 60]),
            "bmi": [None, 22.5, np.nan],
            "ward": [None, "north", None],
            "died": [True, None, False],
        }
    )
    folder = tmp_path / "private"
    folder.mkdir()
    pq.write_table(table.replace_schema_metadata({"pandas": str(CANARY)}), folder / "partial.parquet")
    return folder / "partial.parquet"


class TestConditions:
    def test_of_every_kind_hold_together(self, draw: Callable[..., pa.Table]) -> None:
        where = ("age>=65", "age<80", "bmi!=", "bmi<25.05", "admitted>=2015-06-01", "sex!=male", 'ward="south|east"|')
        rows = draw("--rows", 300, "--seed", 1, *(word for text in where for word in ("--where", text)))
        assert rows.num_rows == 300
        assert {min(rows["age"].to_pylist()), max(rows["age"].to_pylist())} == {65, 79}
        assert max(rows["bmi"].to_pylist()) == 25.0 and rows["bmi"].null_count == 0
        assert min(rows["admitted"].to_pylist()) >= datetime(2015, 6, 1)
        assert set(rows["sex"].to_pylist()) == {"female"}
        assert set(rows["ward"].to_pylist()) == {"south|east", None}

    def test_a_rare_class_is_drawn_in_full(self, draw: Callable[..., pa.Table]) -> None:
        assert draw("--rows", 500, "--where", "died=true")["died"].to_pylist() == [True] * 500

    def test_balance(self, draw: Callable[..., pa.Table]) -> None:
        assert sum(draw("--rows", 200, "--balance", "died")["died"].to_pylist()) == 100
        rows = draw("--rows", 200, "--balance", "sex=male:0.25", "--where", "died=true")
        assert (rows["sex"].to_pylist().count("male"), sum(rows["died"].to_pylist())) == (50, 200)

    def test_the_file_is_marked_as_synthetic(self, draw: Callable[..., pa.Table]) -> None:
        metadata = draw("--rows", 5, "--where", "age>50").schema.metadata
        assert (metadata[b"synthetic"], metadata[b"epsilon"]) == (b"true", b"1.0")


class TestCompletion:
    def test_fills_what_is_empty_and_keeps_the_rest(self, draw: Callable[..., pa.Table], partial: Path) -> None:
        rows = draw("--complete", partial, "--seed", 1)
        assert rows.column_names == [*(column["name"] for column in COLUMNS), "record"]
        assert [rows["age"][0].as_py(), rows["age"][2].as_py()] == [40, 60]
        assert (rows["bmi"][1].as_py(), rows["ward"][1].as_py()) == (22.5, "north")
        assert [rows["died"][0].as_py(), rows["died"][2].as_py()] == [True, False]
        assert rows["record"].to_pylist() == [f"C{CANARY}", "C2", "C3"]
        assert sum(column.null_count for column in rows.columns) == 0
        assert rows.equals(draw("--complete", partial, "--seed", 1, "--rows", 3))

    def test_the_output_is_private_and_says_so(self, bundle: Path, synth: Any, partial: Path, tmp_path: Path) -> None:
        output = tmp_path / "full.parquet"
        outcome = synth("sample", bundle, "--complete", partial, "-o", output)
        assert (outcome.code, outcome.out) == (0, f"{output}\n")
        assert re.fullmatch(
            r"3 rows completed; NOT synthetic: .* holds the rows of .* private .* no budget\n", outcome.err
        )
        assert str(CANARY) not in outcome.err
        assert stat.S_IMODE(output.stat().st_mode) == 0o600
        metadata = pq.read_schema(output).metadata
        assert metadata == {b"completed": b"holds the rows of the input: private, as they are", b"run": b"clinic-1"}
        assert b"synthetic" not in output.read_bytes()

    def test_log_likelihood_of_each_completed_row(
        self, draw: Callable[..., pa.Table], partial: Path, bundle: Path
    ) -> None:
        rows = draw("--complete", partial, "--log-likelihood")
        expected = log_likelihood(TableModel.load(bundle / "model"), rows)
        assert rows["log_likelihood"].to_pylist() == pytest.approx(expected)
        assert np.isfinite(expected).all()

    @pytest.mark.parametrize(
        ("column", "values", "word"),
        [
            ("age", [CANARY], "column age holds a value outside its declared domain (from 18 to 90)"),
            ("ward", [f"C{CANARY}"], "column ward holds a value outside its declared domain"),
            ("sex", ["male"], "appears twice"),
        ],
    )
    def test_refusals_leave_nothing_and_name_no_value(
        self, bundle: Path, synth: Any, tmp_path: Path, column: str, values: list[Any], word: str
    ) -> None:
        path = tmp_path / "partial.parquet"
        copies = 2 if word == "appears twice" else 1
        pq.write_table(pa.Table.from_arrays([pa.array(values)] * copies, names=[column] * copies), path)
        outcome = synth("sample", bundle, "--complete", path, "-o", tmp_path / "full.parquet")
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert word in outcome.err and str(CANARY) not in outcome.err
        assert [file.name for file in tmp_path.iterdir()] == ["partial.parquet"]

    def test_never_into_a_bundle_nor_onto_itself(self, bundle: Path, synth: Any, partial: Path, tmp_path: Path) -> None:
        before = partial.read_bytes()
        (bundle / "data").mkdir(exist_ok=True)
        draft = tmp_path / "run" / "private" / "bundle.partial" / "data"
        draft.mkdir(parents=True)
        for output, word in (
            (draft / "part-00000.parquet", "lies in a bundle"),
            (bundle / "full.parquet", "lies in a bundle"),
            (bundle / "data" / "full.parquet", "lies in a bundle"),
            (partial, "is the partial table itself"),
        ):
            outcome = synth("sample", bundle, "--complete", partial, "-o", output)
            assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
            assert word in outcome.err
        assert partial.read_bytes() == before
        assert not list(bundle.rglob("*.parquet*")) and not list(draft.iterdir())

    def test_a_fault_quotes_nothing(
        self, bundle: Path, synth: Any, partial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: Any, **options: Any) -> Any:
            raise ValueError(f"cannot convert {CANARY}")

        monkeypatch.setattr(pc, "replace_with_mask", fail)
        outcome = synth("sample", bundle, "--complete", partial, "-o", tmp_path / "full.parquet")
        assert (outcome.code, outcome.out) == (1, "")
        assert "complete failed with ValueError" in outcome.err and str(CANARY) not in outcome.err
        assert [path.name for path in tmp_path.iterdir()] == ["private"]


class TestSets:
    def test_each_is_drawn_by_itself_and_a_seed_repeats_them_all(
        self, bundle: Path, synth: Any, tmp_path: Path
    ) -> None:
        found = []
        for folder, seed in (("first", 4), ("again", 4), ("other", 5)):
            outcome = synth("sample", bundle, "--rows", 30, "--sets", 3, "--seed", seed, "-o", tmp_path / folder)
            assert (outcome.code, outcome.out) == (0, f"{tmp_path / folder}\n"), outcome.err
            assert "3 sets of 30 rows drawn; this cost no budget" in outcome.err
            files = sorted((tmp_path / folder).iterdir())
            assert [file.name for file in files] == [f"set-{i:03d}.parquet" for i in (1, 2, 3)]
            found += [pq.read_table(file).drop_columns("patient_nbr").to_pylist() for file in files]
        assert all(len(rows) == 30 for rows in found)
        assert found[:3] == found[3:6]
        assert all(a != b for i, a in enumerate(found[3:]) for b in found[3 : 3 + i])
        assert b"synthetic" in pq.read_schema(tmp_path / "first" / "set-001.parquet").metadata
        assert {path.name for path in tmp_path.iterdir()} == {"first", "again", "other"}

    def test_never_into_what_is_there_and_never_in_part(
        self, bundle: Path, synth: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "kept").mkdir()
        refused = synth("sample", bundle, "--rows", 5, "--sets", 2, "-o", tmp_path / "kept")
        assert (refused.code, refused.err.count("\n")) == (2, 1) and "is there already" in refused.err
        inside = synth("sample", bundle, "--rows", 5, "--sets", 2, "-o", bundle / "more")
        assert inside.code == 2 and "lies in a bundle" in inside.err
        monkeypatch.setattr("synth.parquet.write_file", lambda *_: (_ for _ in ()).throw(OSError("no space")))
        assert synth("sample", bundle, "--rows", 5, "--sets", 2, "-o", tmp_path / "sets").code == 1
        assert [path.name for path in tmp_path.iterdir()] == ["kept"]


class TestAFileInTheWay:
    def test_rows_drawn_before_are_replaced_and_it_is_said(self, bundle: Path, synth: Any, tmp_path: Path) -> None:
        path = tmp_path / "rows.parquet"
        path.touch()  # an empty file is nobody's
        for rows in (7, 5):
            outcome = synth("sample", bundle, "--rows", rows, "-o", path)
            assert (outcome.code, outcome.out) == (0, f"{path}\n")
            assert f"{path}: the rows that were there are replaced" in outcome.err
            assert pq.read_metadata(path).num_rows == rows
        fresh = synth("sample", bundle, "--rows", 5, "-o", tmp_path / "other.parquet")
        assert fresh.code == 0 and "replaced" not in fresh.err

    def test_a_completed_table_is_replaced_too(self, bundle: Path, synth: Any, partial: Path, tmp_path: Path) -> None:
        for told in (False, True):
            outcome = synth("sample", bundle, "--complete", partial, "-o", tmp_path / "full.parquet")
            assert (outcome.code, "are replaced" in outcome.err) == (0, told)

    @pytest.mark.parametrize("kind", ["a table", "no table", "a device"])
    def test_anything_else_stays(self, bundle: Path, synth: Any, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "patients.parquet"
        if kind == "a table":
            pq.write_table(pa.table({"age": [40]}), path)
        elif kind == "no table":
            path.write_text("notes")
        else:
            path.symlink_to("/dev/null")
        before = path.read_bytes()
        outcome = synth("sample", bundle, "--rows", 5, "-o", path)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert "is there already and was not written by synth sample" in outcome.err
        assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("inside", ["rows.parquet", "data/part-00000.parquet", "link/part-00000.parquet"])
@pytest.mark.parametrize("place", ["BUNDLE", "another", "bundle.partial"])
def test_rows_are_never_drawn_into_a_bundle(bundle: Path, synth: Any, tmp_path: Path, place: str, inside: str) -> None:
    """Its manifest would not hold any more, or the draft of one would be sealed with them."""
    folder = bundle if place == "BUNDLE" else tmp_path / place
    (folder / "data").mkdir(parents=True, exist_ok=True)
    if place == "another":
        (folder / "manifest.json").write_text("{}")
    if inside.startswith("link"):
        (tmp_path / "link").symlink_to(folder / "data")
    before = sorted(folder.rglob("*"))
    output = (tmp_path if inside.startswith("link") else folder) / inside
    outcome = synth("sample", bundle, "--rows", 5, "-o", output)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert f"{output}: lies in a bundle" in outcome.err and "manifest" in outcome.err
    assert sorted(folder.rglob("*")) == before


def test_a_folder_that_is_no_bundle(synth: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    outcome = synth("sample", tmp_path / "other", "--rows", 5, "-o", tmp_path / "other" / "rows.parquet")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1) and "other: is no bundle" in outcome.err
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ((), "--rows is needed"),
        (("--rows", 5, "-o", "rows.csv"), "ends in .parquet"),
        (("--rows", 5, "--where", "age>=200"), "from 18 to 90"),
        (("--rows", 5, "--where", "age>60", "--where", "age<30"), "contradicts the other conditions on age"),
        (("--rows", 5, "--where", "ward=south|east"), "a value that holds | is written in double quotes"),
        (("--rows", 5, "--balance", "age"), "no levels"),
        (("--rows", 5, "--balance", "died=true:2"), "from 0 to 1"),
        (("--rows", 5, "--log-likelihood"), "goes with --complete"),
        (("--complete", "nowhere.parquet"), "cannot be read"),
        (("--complete", "PARTIAL", "--where", "age=40"), "--where does not go with --complete"),
        (("--complete", "PARTIAL", "--balance", "died"), "--balance does not go with --complete"),
        (("--complete", "PARTIAL", "--dicom"), "--dicom does not go with --complete"),
        (("--rows", "5", "--dicom"), "--dicom is for images"),
        (("--complete", "PARTIAL", "--rows", 4), "leave --rows out"),
        (("--complete", "PARTIAL", "--sets", 2), "--sets does not go with --complete"),
        (("--rows", 5, "--sets", 2, "--dicom"), "--dicom does not go with --sets"),
    ],
)
def test_mistakes(
    bundle: Path, synth: Any, partial: Path, tmp_path: Path, options: tuple[object, ...], word: str
) -> None:
    given = [partial if option == "PARTIAL" else option for option in options]
    outcome = synth("sample", bundle, "-o", tmp_path / "rows.parquet", *given)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert word in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["private"]
