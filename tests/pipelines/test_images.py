"""A folder of pictures through the whole pipeline, by the command line."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin

from synth.privacy.audit import images as image_audit
from synth.privacy.audit import long
from synth.privacy.ledger import Ledger
from synth.privacy.noise import NoiseSource

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
    assert "5 pictures carry valid content credentials (C2PA)." in verified.out

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
    assert "carry content credentials (C2PA)" in sheet and "a key that was made for this run and not kept" in sheet
    assert "second moments of coefficients by class" in sheet and "candidate pair" not in sheet
    sheets = ["between-0-7.png", "class-0.png", "class-7.png", "within-0.png", "within-7.png"]
    assert sorted(path.name for path in (bundle / "pictures").iterdir()) == sheets
    shown = (bundle / "quality.html").read_text()
    assert all(shown.count(f'src="pictures/{name}"') == 1 for name in sheets) and "left to right" in shown

    report = json.loads((bundle.parent / "internal" / "report.json").read_text())
    assert report["unreadable_pictures"] <= 2 and report["unknown_labels"] <= 1
    assert not list(bundle.parent.glob("internal/failure-*"))
    assert not (bundle.parent / "private").exists() and shared(bundle.parent) == []

    drawn = ward / "more.parquet"
    made = synth("sample", bundle, "--rows", 9, "--where", "side=right", "--seed", 3, "-o", drawn)
    assert made.code == 0 and pq.read_table(drawn)["side"].to_pylist() == [7] * 9
    refused = synth("sample", bundle, "--rows", 9, "--balance", "side", "-o", drawn)
    assert refused.code == 2 and "for tables" in refused.err

    unseen = folder_of_scans(ward.parent / "unseen", seed=1, count=50)
    done = synth("evaluate", bundle, "--real", unseen)
    assert done.code == 0, done.err
    page = Path(done.out.strip())
    assert page == bundle.parent / "internal" / "evaluation.html" and page.read_text().count("data:image/png") == 4
    evaluated = json.loads(page.with_suffix(".json").read_text())
    assert (evaluated["test"], evaluated["learned"], evaluated["membership"]["others"]) == (50, False, 25)
    assert [(score["name"], score["real"]) for score in evaluated["classes"]] == [("left", 0.5), ("right", 0.5)]
    for option, words in (("--real", "name ones that the run has not seen"), ("--target", "are for tables")):
        given = {"--real": unseen, "--target": "side"} if option == "--target" else {"--real": ward / "labels.csv"}
        refused = synth("evaluate", bundle, *(word for pair in given.items() for word in pair))
        assert refused.code == 2 and words in refused.err, refused.err

    spent = (ward / "ledger.db").read_bytes()
    audited = synth("audit", ward / "run.yaml", "--bundle", bundle, "--repetitions", 8, "--canaries", 100)
    # A sound build is refuted with probability below 1e-6 (guesses, by the theorem) and 1e-9 (noise).
    assert audited.code == 0 and "cost no budget" in audited.err, audited.err
    found = audit_at(audited.out)
    assert (found["rows_of"], found["charged"], found["refuted"]) == ("bundle", False, False)
    assert (found["one_run"]["canaries"], found["one_run"]["rows"]) == (100, table.num_rows)
    assert [attack["members"] for attack in found["shadow"]["attacks"]] == [2, 2, 2]
    assert (ward / "ledger.db").read_bytes() == spent
    assert shared(ward / "out") == [] and {path.name for path in Path(audited.out).parents[1].iterdir()} == {"internal"}

    for place in (ward, home):
        for path in place.rglob("*"):
            if "scans" in path.relative_to(place).parts or path.name == "labels.csv":
                continue
            assert CANARY.decode() not in path.name
            with contextlib.suppress(FileNotFoundError):  # a journal of Prefect's database comes and goes
                assert not path.is_file() or CANARY not in path.read_bytes(), path
    assert all(CANARY not in zlib.decompress(part) for part in idat_of(first["bytes"]))


def folder_of_scans(folder: Path, *, seed: int, count: int) -> Path:
    """Pictures as the ward's, all readable, with their labels beside them."""
    rng, lines = np.random.default_rng(seed), ["file,side,patient"]
    folder.mkdir()
    for i in range(count):
        (folder / f"{i}.png").write_bytes(scan(rng, i % 2 == 0))
        lines.append(f"{i}.png,{'right' if i % 2 == 0 else 'left'},{i}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


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
        ({"synthesizer": {"critic_share": 1}}, {}, "should be below 1 for images", 2),
        ({"output": {"c2pa": {"certificates": "a.pem", "key": "b.pem"}}}, {}, "a.pem: No such file", 2),
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


def audit_at(printed: str) -> dict[str, Any]:
    """What an audit has found, from the path that it printed."""
    found: dict[str, Any] = json.loads(Path(printed.strip()).with_suffix(".json").read_text())
    return found


def as_parquet(ward: Path, file: str) -> Path:
    """The ward's scans in one file, three of each patient, without text."""
    rng, rows = np.random.default_rng(1), 3 * PATIENTS
    content = pa.array([{"bytes": scan(rng, i % 5 < 2)} for i in range(rows)], pa.struct([("bytes", pa.binary())]))
    sides = pa.array([7 * (i % 5 < 2) for i in range(rows)])
    people = pa.array([f"P{i // 3}" for i in range(rows)])
    pq.write_table(pa.table({"image": content, "side": sides, "patient": people}), ward / file)
    return ward / file


class TenTimesTooSmall(NoiseSource):
    def standard_normal(self, count: int) -> np.ndarray:
        return super().standard_normal(count) / 10


def test_public_pictures_are_audited_for_free(
    ward: Path, synth: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = as_parquet(ward, "public.parquet")
    (ward / "labels.csv").unlink()  # the run's own source is not even there
    options = ("--public-table", table, "--repetitions", 0, "--canaries", 100)
    outcome = synth("audit", ward / "run.yaml", *options)
    assert outcome.code == 0, outcome.err  # a false alarm is rarer than 1e-6
    found = audit_at(outcome.out)
    assert (found["rows_of"], found["charged"], found["shadow"]) == ("public table", False, None)
    # Two scans of each patient, and canaries of whole patients.
    assert (found["one_run"]["rows"], found["one_run"]["rows_per_canary"]) == (2 * PATIENTS, 2)
    assert "is the declaration of whoever named it" in Path(outcome.out.strip()).read_text()

    monkeypatch.setattr(long, "FREE_ROWS", 50)
    # A canary's matrix is never shorter than .2, so the noise alone shows μ above .2·10·√.6 times the claimed one.
    monkeypatch.setattr(image_audit, "NoiseSource", TenTimesTooSmall)
    refuted = synth("audit", ward / "run.yaml", *options)
    assert refuted.code == 1 and "the claim is refuted" in refuted.err
    assert audit_at(refuted.out)["refuted"] and audit_at(refuted.out)["one_run"]["rows"] == 50
    assert not (ward / "ledger.db").exists()


def test_private_pictures_are_charged_once_and_told_to_the_steward(ward: Path, synth: Callable[..., Any]) -> None:
    told = synth("audit", ward / "run.yaml", "--canaries", 50, "--json")
    assert told.code == 0 and "in the page alone" in told.err, told.err
    answer = json.loads(told.out)
    found = audit_at(answer["report"])
    assert answer["refuted"] is None and isinstance(found["refuted"], bool)
    assert (found["rows_of"], found["charged"], found["shadow"]) == ("private rows", True, None)
    assert found["one_run"]["rows"] == 2 * PATIENTS
    ledger = Ledger.open(f"sqlite:///{ward}/ledger.db")
    account = ledger.population("ward")
    assert account is not None and account.epsilon == 8.0
    assert len(account.charged) == 1 and not account.open
    folder = Path(answer["report"]).parents[1]
    assert {path.name for path in folder.iterdir()} == {"internal"}
    assert not any(CANARY in path.read_bytes() for path in (ward / "out").rglob("*") if path.is_file())
    ledger.set_cap("ward", 9.0)
    (ward / "labels.csv").unlink()  # refused before it is looked for
    refused = synth("audit", ward / "run.yaml")
    assert (refused.code, refused.out, refused.err.count("\n")) == (3, "", 1)
    assert len(list((ward / "out").iterdir())) == 1


@pytest.mark.parametrize("alias", ["symlink_to", "hardlink_to", None])
def test_private_pictures_are_no_public_table(ward: Path, synth: Callable[..., Any], alias: str | None) -> None:
    source = as_parquet(ward, "scans.parquet")
    run, named = {"source": {"path": "scans.parquet"}}, source
    if alias is not None:
        named = ward / "alias"
        getattr(named, alias)(source)
    (ward / "empty").mkdir()
    calls: list[tuple[dict[str, Any], Path, str]] = [
        (run, named, "whose rows are private"),
        ({}, ward / "labels.csv", "whose rows are private"),
        ({}, ward / "scans", "whose rows are private"),
        ({}, ward / "empty", "is a folder"),
    ]
    for changes, table, words in calls:
        outcome = synth("audit", write(ward, changes), "--public-table", table)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome.err
        assert words in outcome.err
    assert not (ward / "out").exists() and not (ward / "ledger.db").exists()
