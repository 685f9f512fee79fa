"""What is public depends on the people through the paid-for tables alone.

Two sources with the same measured tables, the same noise and the same clock give the same bundle to the last byte,
whatever else is different about them: order of rows, ids, values outside their bounds, four-way patterns, columns that
the schema does not name, format, name and size of the file. All entropy of a run comes from a stream that starts anew.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import itertools
import json
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

# A whole run before the first that is compared: what libraries draw when they are imported is no part of a run.
pytestmark = pytest.mark.usefixtures("quick_bundle")

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
EVEN = tuple(bits for bits in itertools.product(range(2), repeat=4) if sum(bits) % 2 == 0)
ODD = tuple(bits for bits in itertools.product(range(2), repeat=4) if sum(bits) % 2 == 1)
"""Each has all values once in every three of its columns: no table of two or three columns tells them apart."""


class Stream:
    """Bytes that follow from how many were asked for before."""

    def __init__(self) -> None:
        self.asked = 0

    def bytes(self, count: int) -> bytes:
        self.asked += 1
        return hashlib.shake_256(b"public bytes %d" % self.asked).digest(count)


@pytest.fixture
def bundle_of(monkeypatch: pytest.MonkeyPatch, quick_run: Callable[[Path], Path]) -> Callable[[Path], dict[str, bytes]]:
    """Run a run.yaml on recorded entropy and a still clock.

    Returns every file of the bundle, and the time stamps of all.
    """
    for loaded in ("pipelines.flow", "synth.evaluate.internal.models"):
        importlib.import_module(loaded)  # libraries ask for entropy when they are loaded
    from synth import prepare
    from synth.privacy.ledger import Ledger
    from synth.run_folder import create_run_folder

    default_rng, opened = np.random.default_rng, Ledger.open

    def call(run_yaml: Path) -> dict[str, bytes]:
        stream = Stream()
        with monkeypatch.context() as patch:
            patch.setattr(os, "urandom", stream.bytes)
            patch.setattr(secrets, "randbits", lambda bits: int.from_bytes(stream.bytes(16), "big") >> (128 - bits))
            patch.setattr(secrets, "token_hex", lambda count=16: stream.bytes(count).hex())
            patch.setattr(
                np.random,
                "default_rng",
                lambda seed=None: default_rng(list(stream.bytes(16)) if seed is None else seed),
            )
            patch.setattr(prepare, "create_run_folder", lambda run, **_: create_run_folder(run, now=NOW))
            patch.setattr(Ledger, "open", lambda url: opened(url, clock=lambda: NOW))
            bundle = quick_run(run_yaml)
        files = {path.relative_to(bundle).as_posix(): path for path in sorted(bundle.rglob("*"))}
        found = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
        found["stamps"] = json.dumps([[name, path.stat().st_mtime_ns] for name, path in files.items()]).encode()
        return found

    return call


def with_blocks(table: pa.Table, pattern: tuple[tuple[int, ...], ...]) -> pa.Table:
    """The first rows replaced by blocks of eight that differ in sex, ward, grade and bmi alone, by the pattern."""
    rows = table.to_pylist()
    for start in range(0, 200, 8):
        for row, (sex, ward, grade, bmi) in zip(rows[start : start + 8], pattern, strict=True):
            row |= {name: rows[start][name] for name in ("age", "admitted", "died")}
            row |= {"sex": ("female", "male")[sex], "ward": ("north", "south")[ward], "grade": (1, 3)[grade]}
            row["bmi"] = (20.5, 31.0)[bmi]
    return pa.Table.from_pylist(rows, schema=table.schema)


def write_twin(clinic: Any) -> None:
    """The same measured tables from a source that is as different as it can be: a CSV file, in another order."""
    clinic.put("patient_nbr", [f"a longer id {i // 2}" for i in range(clinic.table.num_rows)])
    ages = clinic.table["age"].to_pylist()
    clinic.put("age", [2_000 + i if age == 90 else age for i, age in enumerate(ages)])  # 90 is the declared bound
    clinic.put("note", ["-"] * clinic.table.num_rows)
    clinic.table = clinic.table.take(np.random.default_rng(5).permutation(clinic.table.num_rows))
    clinic.table = clinic.table.select(clinic.table.column_names[::-1])
    clinic.write()
    clinic.source.unlink()
    pa.csv.write_csv(clinic.table, clinic.folder / "other name.csv")
    clinic.run["source"] = {"path": "other name.csv"}
    clinic.run_yaml.write_text(json.dumps(clinic.run))


def write_twin_of_others(clinic: Any) -> None:
    """The same held-out people, in another order and format."""
    others = pq.read_table(clinic.folder / "others.parquet")
    pa.csv.write_csv(others.take(np.random.default_rng(6).permutation(90)), clinic.folder / "more people.csv")
    clinic.run["evaluation"] = {"holdout": "more people.csv"}


@pytest.mark.parametrize("unit", ["row", "person"])
def test_equal_tables_give_equal_bytes(clinic_at: Any, tmp_path: Path, bundle_of: Any, unit: str) -> None:
    clinics = [clinic_at(tmp_path / name) for name in ("first", "a folder of another name")]
    for clinic, pattern in zip(clinics, (EVEN, ODD), strict=True):
        clinic.table = with_blocks(clinic.table, pattern)
        if unit == "person":
            clinic.put("patient_nbr", [f"P{i // 2}" for i in range(clinic.table.num_rows)])
            clinic.schema |= {"privacy_unit": "patient_nbr", "max_rows_per_person": 2}
            pq.write_table(clinic.table.slice(200, 90), clinic.folder / "others.parquet")
            clinic.run["evaluation"] = {"holdout": "others.parquet"}
        clinic.run["privacy"]["epsilon"] = 30.0
        clinic.write()
    if unit == "person":
        write_twin_of_others(clinics[1])
    whole = clinics[0].table.group_by(["sex", "ward", "grade", "bmi"]).aggregate([([], "count_all")]).to_pylist()
    write_twin(clinics[1])
    other = clinics[1].table.group_by(["sex", "ward", "grade", "bmi"]).aggregate([([], "count_all")]).to_pylist()
    assert sorted(map(str, whole)) != sorted(map(str, other))  # the people are not the same

    first, second = (bundle_of(clinic.run_yaml) for clinic in clinics)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_one_more_person_shows_where_it_is_paid_for(clinic_at: Any, tmp_path: Path, bundle_of: Any) -> None:
    """The proof above has power: a source that differs in a measured table by one does not give the same bytes."""
    clinics = [clinic_at(tmp_path / name) for name in ("with", "without")]
    clinics[1].table = clinics[1].table.slice(1)
    clinics[1].write()
    first, second = (bundle_of(clinic.run_yaml) for clinic in clinics)
    changed = {name for name in first if first[name] != second[name]}
    assert {"data/part-00000.parquet", "model/generator.safetensors", "quality.json", "manifest.json"} <= changed
    assert "schema.yaml" not in changed
    assert "stamps" not in changed


def test_equal_moments_of_pictures_give_equal_bytes(
    tmp_path: Path, bundle_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other order, other names, other compression: the same pictures. Sheets are compared as they are before they are
    signed, with a fresh key each time: a signature follows from a sheet's bytes, its name and the run's id and day."""
    monkeypatch.setattr("synth.release.credentials.PACKAGE", "no_such_package")
    rng = np.random.default_rng(3)
    pictures = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    labels = rng.integers(0, 2, 60)
    runs = []
    for name, order, level in (("first", np.arange(60), 9), ("second", rng.permutation(60), 0)):
        folder = tmp_path / name
        folder.mkdir()
        schema = {
            "dataset": "scans",
            "kind": "image",
            "privacy_unit": "row",
            "image": {"height": 8, "width": 8, "channels": 1, "bits": 8, "value_range": [0, 255], "resize": "pad"},
            "target": {"name": "label", "classes": {"0": "normal", "1": "ill"}},
        }
        run = {
            "source": {"path": f"{name}.parquet"},
            "schema": "schema.yaml",
            "privacy": {"epsilon": 5.0, "delta": 1e-5},
            "output": {"directory": "out"},
        }
        (folder / "schema.yaml").write_text(json.dumps(schema))
        (folder / "run.yaml").write_text(json.dumps(run))
        images = [{"bytes": png(pictures[i], level), "path": f"/home/{name}/{i}.png"} for i in order]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels[order], pa.int64())})
        pq.write_table(table, folder / f"{name}.parquet")
        runs.append(folder / "run.yaml")
    first, second = map(bundle_of, runs)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def png(pixels: np.ndarray[Any, Any], level: int) -> bytes:
    with io.BytesIO() as stream:
        Image.fromarray(pixels).save(stream, format="PNG", compress_level=level)
        return stream.getvalue()
