"""A run on pictures that learns detail from public ones: what is said of them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synth import stages
from synth.config import load_run
from synth.images.model import ImageModel
from synth.model_files import WEIGHTS_FILE
from synth.prepare import events_of, prepare
from synth.privacy.ledger import Ledger
from synth.resume import resume
from synth.run_folder import hold

FOLDER = "zq-elsewhere"
PUBLIC = {"path": FOLDER, "declared": "Stripes drawn by a program, CC0: of no person", "steps": 20}
Build = Callable[..., Path]


def striped(rng: np.random.Generator, side: int, across: bool) -> bytes:
    pixels = rng.integers(0, 60, (side, side)).astype(np.uint8)
    pixels[:, : side // 2] += np.uint8(150)
    out = BytesIO()
    Image.fromarray(pixels.T if across else pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def ward(scans: Build, tmp_path: Path) -> Build:
    """`ward(public)`: 120 scans in a Parquet file and 40 public pictures in a folder; the run.yaml that it returns."""

    def build(public: dict[str, Any] | None = PUBLIC) -> Path:
        rng = np.random.default_rng(0)
        rows = [{"image": {"bytes": striped(rng, 12, i % 2 == 1)}, "label": i % 2} for i in range(120)]
        (tmp_path / FOLDER).mkdir(exist_ok=True)
        for i in range(40):
            (tmp_path / FOLDER / f"zq-{i}.png").write_bytes(striped(rng, 20, i % 2 == 1))
        schema = {
            "image": {"height": 12, "width": 12},
            "target": {"name": "label", "classes": {0: "left", 1: "top"}},
        }
        run = {
            "privacy": {"epsilon": 8.0, "delta": 1e-5},
            "synthesizer": {} if public is None else {"public": public},
        }
        return scans(rows, schema, run)

    return build


def test_public_pictures_are_free_and_told(ward: Build, synth: Any, quick_run: Any) -> None:
    alone = events_of(load_run(ward(None)))
    run_yaml = ward()
    assert events_of(load_run(run_yaml)) == alone
    assert "detail is learned from public pictures in 20 steps, at no cost" in synth("plan", run_yaml).out
    bundle = quick_run(run_yaml)
    model = ImageModel.load(bundle / "model")
    assert model.residual is not None and float(model.residual.leave.weight.detach().abs().max()) > 0
    statement = json.loads((bundle / "privacy.json").read_bytes())["x_synth"]
    assert [event["name"] for event in statement["events"]] == [event.name for event in alone]
    assert any(step.startswith("Public pictures: declared public") for step in statement["path_covered"])
    assert any(item.startswith("The pictures that the steward declares public") for item in statement["not_covered"])
    sheet = (bundle / "datasheet.md").read_text()
    facts = json.loads((bundle.parent / "internal" / "facts.json").read_text())["model"]["public"]
    assert facts["pictures"] == 40 and facts["declared"] == PUBLIC["declared"]
    for words in ("40 pictures that the steward declares public", PUBLIC["declared"], facts["sha256"], "20 steps"):
        assert words in sheet
    assert "comes from public pictures" in sheet and "blurred where the source's are sharp" not in sheet
    for file in bundle.rglob("*"):
        assert file.is_dir() or b"zq-" not in file.read_bytes()  # neither the folder's name nor a file's
    assert synth("verify", bundle).code == 0


def test_a_run_that_died_goes_on_to_the_same_model(ward: Build, tmp_path: Path) -> None:
    """They are read when the model learns, and one seed decides. What was drawn before is not drawn again."""
    run_yaml, ledger = ward(), Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    folder = prepare(run_yaml, ledger)
    with hold(folder):
        stages.reserve(folder, ledger)
        stages.encode(folder)
        stages.measure(folder, ledger)
    models = []
    for _ in range(2):
        assert resume(run_yaml, ledger) == folder
        with hold(folder):
            stages.train(folder)
            models.append((folder.model / WEIGHTS_FILE).read_bytes())
            (folder.facts / "model.json").unlink()
    assert models[0] == models[1] and ImageModel.load(folder.model).residual is not None


def test_without_them_nothing_is_said(ward: Build) -> None:
    from synth.privacy.statement import not_covered

    assert not any("declares public:" in item for item in not_covered(load_run(ward(None)).declared))


@pytest.mark.parametrize(
    ("public", "words"),
    [
        ({"path": FOLDER}, "synthesizer.public.declared"),
        (PUBLIC | {"declared": "yes"}, "should say in words what the pictures are, why they are public"),
        (PUBLIC | {"path": "scans.parquet"}, "is of the source, which is private"),
        (PUBLIC | {"path": "nowhere"}, "no such folder or file"),
        (PUBLIC | {"path": "broken"}, "zq-0.png cannot be read as a picture"),
    ],
)
def test_what_is_refused_is_not_charged(
    ward: Build, synth: Any, tmp_path: Path, public: dict[str, Any], words: str
) -> None:
    run_yaml = ward(public)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "zq-0.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    done = synth("run", run_yaml)
    assert done.code == 2 and words in done.err.splitlines()[-1]
    assert Ledger.open(f"sqlite:///{tmp_path}/ledger.db").history() == () and not list(tmp_path.glob("out/*"))


def test_a_table_has_no_public_pictures_and_no_sheets(clinic: Any, synth: Any) -> None:
    clinic.run["synthesizer"] |= {"public": PUBLIC}
    done = synth("plan", clinic.write().run_yaml)
    assert done.code == 2 and "synthesizer.public: is for images" in done.err
    del clinic.run["synthesizer"]["public"]
    clinic.run["output"] |= {"c2pa": {"certificates": "chain.pem", "key": "key.pem"}}
    done = synth("plan", clinic.write().run_yaml)
    assert done.code == 2 and "output.c2pa: is for images" in done.err
