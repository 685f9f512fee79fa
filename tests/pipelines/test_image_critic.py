"""A run on pictures whose model is refined against a critic: end to end, with people, and when it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from synth import stages
from synth.config import load_run
from synth.images.model import ImageModel
from synth.images.refine import precision_of
from synth.prepare import events_of, prepare
from synth.privacy import budget
from synth.privacy.ledger import Ledger
from synth.privacy.pld import epsilon_of
from synth.refinement import settings_of
from synth.run_folder import hold

STEPS, PATIENTS, EACH = 6, 300, 3
CRITIC = {"critic_share": 0.3, "critic": {"steps": STEPS, "sample_rate": 0.2, "hidden_size": 16}}
Build = Callable[..., Path]


@pytest.fixture
def ward(scans: Build) -> Build:
    """`ward(synthesizer=…, side=12)`: three scans of each patient in a Parquet file; the run.yaml that it returns."""

    def build(synthesizer: dict[str, Any] | None = None, side: int = 12, epsilon: float = 8.0) -> Path:
        rng, rows = np.random.default_rng(0), []
        for i in range(PATIENTS * EACH):
            pixels = rng.integers(0, 60, (12, 12)).astype(np.uint8)
            pixels[:, 6 * (i % 2) : 6 * (i % 2) + 6] += np.uint8(150)
            out = BytesIO()
            Image.fromarray(pixels).save(out, "PNG")
            rows.append({"image": {"bytes": out.getvalue()}, "label": i % 2, "patient": f"P{i // EACH}"})
        schema = {
            "image": {"height": side, "width": side},
            "target": {"name": "label", "classes": {0: "left", 1: "right"}},
            "privacy_unit": "patient",
            "max_rows_per_person": 2,
        }
        run = {
            "privacy": {"epsilon": epsilon, "delta": 1e-5},
            "synthesizer": CRITIC if synthesizer is None else synthesizer,
        }
        return scans(rows, schema, run)

    return build


def account_of(folder: Path) -> Any:
    return Ledger.open(f"sqlite:///{folder}/ledger.db").population("ward")


def test_from_pictures_to_a_refined_bundle(
    ward: Build, synth: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_yaml = ward()
    plan = synth("plan", run_yaml).out
    assert f"DP-SGD: {STEPS} steps, each person in a step with probability 0.2, noise" in plan
    assert "million operations for each picture in a step" in plan

    seen: dict[str, Any] = {}
    work = stages.image_stages.refine_pictures

    def watching(model: Any, measured: Any, private: Any, settings: Any, config: Any, *, charge: Any) -> Any:
        seen.update(private=private, settings=settings, config=config, total=measured.total)
        return work(model, measured, private, settings, config, charge=charge)

    monkeypatch.setattr(stages.image_stages, "refine_pictures", watching)
    done = synth("run", run_yaml)
    bundle = done.bundle
    assert f"refine: critic step {STEPS} of {STEPS}" in done.err
    verified = synth("verify", bundle, "--ledger", f"sqlite:///{tmp_path}/ledger.db")
    assert verified.code == 0, verified.err

    # Two scans of each patient, told apart by their numbers; the batch follows from the noised count.
    assert seen["private"].pixels.shape == (2 * PATIENTS, 144)
    assert sorted(seen["private"].persons.tolist()) == sorted([*range(PATIENTS)] * 2)
    assert seen["settings"].max_rows_per_person == 2
    assert seen["config"].expected_batch_size == pytest.approx(max(1.0, 0.2 * seen["total"] / 2))

    events = account_of(tmp_path).charged[0].events
    assert sorted(e.name for e in account_of(tmp_path).charged[0].spent) == sorted(e.name for e in events)
    statement = json.loads((bundle / "privacy.json").read_bytes())["x_synth"]
    assert statement["epsilon"] == epsilon_of(events, 1e-5)
    assert 8 - 1e-2 <= statement["epsilon"] <= 8
    written = statement["events"][-1]
    assert (written["name"], written["steps"], written["sample_rate"]) == (budget.CRITIC, STEPS, 0.2)
    assert any(step.startswith("Refining:") for step in statement["path_covered"])
    sheet = (bundle / "datasheet.md").read_text()
    assert "Refinement. A critic with" in sheet and "and not the critic trained by DP-SGD" in sheet

    model = ImageModel.load(bundle / "model")
    assert model.residual is not None
    for seed in (3, 3):
        made = synth(
            "sample", bundle, "--rows", 9, "--where", "label=right", "--seed", seed, "-o", tmp_path / "m.parquet"
        )
        assert made.code == 0, made.err
        seen.setdefault("drawn", []).append(pq.read_table(tmp_path / "m.parquet"))
        (tmp_path / "m.parquet").unlink()
    assert seen["drawn"][0].equals(seen["drawn"][1]) and seen["drawn"][0]["label"].to_pylist() == [1] * 9
    first = tmp_path / "first.png"
    first.write_bytes(pq.read_table(bundle / "data" / "part-00000.parquet")["image"][0].as_py()["bytes"])
    detected = json.loads(synth("detect", first, "--bundle", bundle, "--json").out)
    # By chance: below one in a million, though a residual leaves its pixels less unsure. (1e-23 in the worst of sixty
    # runs; with fifty patients a model often has next to no variance, and all its pictures are equal.)
    assert (detected["verdict"], detected["found"]) == ("whole", 1) and detected["of_pixels"] < 1e-6

    internal = bundle.parent / "internal"
    report = json.loads((internal / "report.json").read_text())
    assert 0 <= report["features_moments"]["recall"] <= 1 and 0 <= report["accuracy_moments"] <= 1
    assert "of the moments alone" in (internal / "report.html").read_text()
    assert not list(internal.glob("failure-*")) and not (bundle.parent / "private").exists()


def test_two_processes_train_one_critic(ward: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have the same weights in the end, to the last bit: a run whose processes have not fails."""
    alone = events_of(load_run(ward(epsilon=1.0)))
    run_yaml = ward(CRITIC | {"critic": CRITIC["critic"] | {"processes": 2}}, epsilon=1.0)
    counts, together = [], stages.image_stages.together

    def counting(folder: Path, count: int, **named: Any) -> Any:
        counts.append(count)
        found = together(folder, count, **named)
        assert {"pixels.npy", "meeting", "refined"} <= {path.name for path in (folder / "private").iterdir()}
        return found

    monkeypatch.setattr(stages.image_stages, "together", counting)
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    folder = prepare(run_yaml, ledger)
    with hold(folder):
        stages.reserve(folder, ledger)
        stages.encode(folder)
        stages.measure(folder, ledger)
        stages.train(folder)
        stages.refine(folder, ledger)
        residual = ImageModel.load(folder.model).residual
        critic = folder.noted("model")["critic"]
    assert counts == [2]
    spent = ledger.run(folder.run_id)
    assert spent is not None and spent.spent == spent.events == alone  # who does the work is nothing to the cost
    assert residual is not None and float(residual.leave.weight.detach().abs().max()) > 0
    # The critic's first step is its own; when the generator takes its own is the same in both processes.
    assert (critic["steps"], critic["generator_steps"]) == (STEPS, STEPS - 1)


def test_without_a_gpu_each_processes_keep_full_precision(ward: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for processes, precision in ((1, "bf16-mixed"), (2, "32-true")):
        run = load_run(ward(CRITIC | {"critic": CRITIC["critic"] | {"processes": processes}}))
        assert precision_of(settings_of(run, run.critic)) == precision


def test_one_that_fails_while_refining_stays_spent_and_cannot_go_on(
    ward: Build, synth: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synth.privacy.dp_sgd import PrivateCritic

    run_yaml, step = ward(), PrivateCritic.private_step

    def fails(self: Any, columns: Any, **named: Any) -> None:
        step(self, columns, **named)
        if self.steps_taken == 2:
            raise RuntimeError(f"a picture: {columns[0][0].tolist()}")

    monkeypatch.setattr(PrivateCritic, "private_step", fails)
    done = synth("run", run_yaml)
    assert done.code == 1
    assert "refine failed with RuntimeError" in done.err and "a picture:" not in done.out + done.err
    [charged] = account_of(tmp_path).charged
    assert charged.state == "settled" and budget.CRITIC in {event.name for event in charged.spent}
    assert not list((tmp_path / "out").rglob("pixels.*")) and not list((tmp_path / "out").glob("*/bundle"))
    again = synth("run", run_yaml, "--resume")
    assert again.code == 2 and "stays spent" in again.err


@pytest.mark.parametrize(
    ("synthesizer", "side", "words"),
    [
        ({"critic_share": 1}, 12, "should be below 1 for images"),
        (CRITIC, 7, "a critic sees pictures of 8 to 128 pixels a side"),
        (CRITIC, 129, "a critic sees pictures of 8 to 128 pixels a side"),
        (CRITIC | {"members": 2}, 12, "synthesizer.members: is for tables"),
    ],
)
def test_what_is_refused(ward: Build, synth: Any, synthesizer: dict[str, Any], side: int, words: str) -> None:
    done = synth("plan", ward(synthesizer, side))
    assert done.code == 2 and words in done.err
    assert len(done.err.strip().splitlines()) <= 2
