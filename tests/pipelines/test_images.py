"""A folder of pictures through the whole pipeline, by the command line."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin

CANARY = b"zq-canary"
PATIENTS = 60
CLASSES = {0: "left", 7: "right"}
RUN: dict[str, Any] = {
    "source": {"folder": "scans", "labels": "labels.csv"},
    "schema": "schema.yaml",
    "privacy": {"epsilon": 8.0, "delta": 1e-5},
    "output": {"directory": "out"},
    "ledger": {"url": "sqlite:///ledger.db"},
}
SCHEMA: dict[str, Any] = {
    "dataset": "scans",
    "population": "ward",
    "kind": "image",
    "image": {"height": 12, "width": 12, "value_range": [0, 255], "resize": "crop"},
    "target": {"name": "side", "classes": CLASSES},
    "privacy_unit": "patient",
    "max_rows_per_person": 2,
}


def scan(rng: np.random.Generator, right: bool) -> bytes:
    """Bright on one side, 12 × 15, with a text inside that nobody should meet again."""
    pixels = rng.integers(0, 60, (12, 15)).astype(np.uint8)
    pixels[:, 9:] += np.uint8(150 * right)
    pixels[:, :6] += np.uint8(150 * (not right))
    texts, out = PngImagePlugin.PngInfo(), BytesIO()
    texts.add_text("Patient", f"{CANARY.decode()}-text")
    Image.fromarray(pixels).save(out, "PNG", pnginfo=texts)
    return out.getvalue()


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """Three scans of each patient, some of them broken, and labels that are not declared."""
    rng, folder = np.random.default_rng(0), tmp_path / "ward"
    (folder / "scans").mkdir(parents=True)
    lines = ["file,side,patient,note"]
    for i in range(3 * PATIENTS):
        name = f"{CANARY.decode()}-{i}.png"
        right = i % 5 < 2
        content = scan(rng, right)
        (folder / "scans" / name).write_bytes(CANARY + b"-bytes" if i == 4 else content[:60] if i == 9 else content)
        side = f"{CANARY.decode()}-label" if i == 11 else "right" if right else 0
        lines.append(f"{name},{side},{CANARY.decode()}-person-{i // 3},{CANARY.decode()}-note")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    write(folder)
    return folder


def write(folder: Path, run: dict[str, Any] | None = None, schema: dict[str, Any] | None = None) -> Path:
    (folder / "schema.yaml").write_text(json.dumps(SCHEMA | (schema or {})))
    (folder / "run.yaml").write_text(json.dumps(RUN | (run or {})))
    return folder / "run.yaml"


def test_from_a_folder_to_a_bundle(
    ward: Path, synth: Callable[..., Any], home: Path, shared: Callable[[Path], list[str]]
) -> None:
    planned = json.loads(synth("plan", ward / "run.yaml", "--json").out)
    assert planned["images"]["offered"] == 144 and planned["epsilon"] == 8
    assert "coefficients a picture" in synth("plan", ward / "run.yaml").out

    bundle = synth("run", ward / "run.yaml").bundle
    verified = synth("verify", bundle, "--ledger", RUN["ledger"]["url"].replace("///", f"///{ward}/"))
    assert verified.code == 0, verified.err

    parts = list((bundle / "data").glob("part-*.parquet"))
    table = pq.read_table(parts[0])
    assert str(table.schema.field("image").type) == "struct<bytes: binary, path: string>"
    assert str(table.schema.field("side").type) == "int64"
    # Two scans of each patient are counted, with noise of 6.4 (4.5 a class): false alarm below 1e-19.
    assert abs(table.num_rows - 2 * PATIENTS) < 60
    assert set(table["side"].to_pylist()) == set(CLASSES)
    first = table["image"][0].as_py()
    assert first["path"] is None
    with Image.open(BytesIO(first["bytes"])) as image:
        assert (image.size, image.mode) == ((12, 12), "L")
        assert "trainedAlgorithmicMedia" in image.info["XML:com.adobe.xmp"]
    assert pq.read_metadata(parts[0]).metadata[b"synthetic"] == b"true"

    privacy = json.loads((bundle / "privacy.json").read_bytes())["x_synth"]
    assert (privacy["epsilon"], privacy["privacy_unit"], len(privacy["events"])) == (8, "person", 4)
    assert all(event["sensitivity"] == 2 for event in privacy["events"])
    quality = json.loads((bundle / "quality.json").read_bytes())
    assert quality["valid_rows"] == quality["rows"] == table.num_rows
    assert [score["class_value"] for score in quality["moments"]] == [0, 7]
    field = json.loads((bundle / "croissant.json").read_bytes())["recordSet"][0]["field"][0]
    assert (field["dataType"], field["source"]["transform"]) == ("sc:ImageObject", {"jsonPath": "bytes"})
    sheet = (bundle / "datasheet.md").read_text()
    assert "second moments of coefficients by class" in sheet and "candidate pair" not in sheet
    assert sorted(path.name for path in (bundle / "pictures").iterdir()) == ["class-0.png", "class-7.png"]

    report = json.loads((bundle.parent / "internal" / "report.json").read_text())
    assert report["unreadable_pictures"] <= 2 and report["unknown_labels"] <= 1
    assert not list(bundle.parent.glob("internal/failure-*"))
    assert not (bundle.parent / "private").exists() and shared(bundle.parent) == []

    drawn = ward / "more.parquet"
    made = synth("sample", bundle, "--rows", 9, "--where", "side=right", "--seed", 3, "-o", drawn)
    assert made.code == 0 and pq.read_table(drawn)["side"].to_pylist() == [7] * 9
    refused = synth("sample", bundle, "--rows", 9, "--balance", "side", "-o", drawn)
    assert refused.code == 2 and "for tables" in refused.err

    for place in (ward, home):
        for path in place.rglob("*"):
            if "scans" in path.relative_to(place).parts or path.name == "labels.csv":
                continue
            assert CANARY.decode() not in path.name
            assert not path.is_file() or CANARY not in path.read_bytes(), path
    assert all(CANARY not in zlib.decompress(part) for part in idat_of(first["bytes"]))


def idat_of(png: bytes) -> list[bytes]:
    """The compressed pixels of a PNG of one IDAT chunk."""
    start = png.index(b"IDAT") + 4
    length = int.from_bytes(png[start - 8 : start - 4], "big")
    return [png[start : start + length]]


@pytest.mark.parametrize(
    ("run", "schema", "words", "code"),
    [
        ({"source": {"path": "labels.csv"}}, {}, "not a Parquet file", 2),
        ({"source": {"folder": "gone", "labels": "labels.csv"}}, {}, "no such folder", 2),
        ({}, {"target": {"name": "label", "classes": CLASSES}}, "column label is missing", 2),
        ({}, {"privacy_unit": "person"}, "column person is missing", 2),
        ({"synthesizer": {"critic_share": 0.5}}, {}, "for tables alone", 2),
        ({"privacy": {"epsilon": 1, "delta": 0.01}}, {}, "promises too little", 3),
    ],
)
def test_refusals_leave_nothing(
    ward: Path, synth: Callable[..., Any], run: dict[str, Any], schema: dict[str, Any], words: str, code: int
) -> None:
    refused = synth("run", write(ward, run, schema))
    assert refused.code == code and words in refused.err and len(refused.err.splitlines()) == 1
    assert CANARY.decode() not in refused.err
    assert not (ward / "out").exists() and not (ward / "ledger.db").exists()


def test_a_cap_holds_for_pictures_too(ward: Path, synth: Callable[..., Any]) -> None:
    synth("budget", "cap", "ward", 3, "--ledger", f"sqlite:///{ward}/ledger.db")
    refused = synth("run", ward / "run.yaml")
    assert refused.code == 3 and "ward" in refused.err
