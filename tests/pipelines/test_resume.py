"""Runs that died and go on: nothing is drawn again, nothing more is charged, and what is lost stays spent.

One run leaves a copy of everything on disk at many of its moments: what a process that is killed there leaves. Each
copy is put back in turn and resumed, by the flow's own wiring. `test_killed.py` and `benchmarks/resume.py` kill real
processes.
"""

from __future__ import annotations

import functools
import importlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synth.config import load_run
from synth.durations import noted_in
from synth.errors import SynthError, UserError
from synth.images import stages as image_stages
from synth.prepare import prepare
from synth.privacy.audit.images import audit_of_images
from synth.privacy.audit.one_run import Audit
from synth.privacy.audit.synthetic_rows import audit_of_rows
from synth.privacy.dp_sgd import PrivateCritic
from synth.privacy.ledger import Ledger
from synth.resume import can_be_resumed, resume
from synth.run_folder import RunFolder, hold
from synth.runs import prune
from synth.tables import stages as table_stages

Moments = dict[str, tuple[str, bool]]
"""Name of a moment → the call that it is at, and whether it comes after that call."""

BEFORE_A_DRAW: Moments = {
    "reserved": ("synth.stages:encode", False),
    "encoding": ("synth.tables.stages:encode_rows", True),
    "encoded": ("synth.stages:measure", False),
    "measuring": ("synth.tables.measure:Measurer.measure", False),
}
LOST: Moments = {
    "one release spent": ("synth.privacy.ledger:Ledger.spend", True),
    "all releases drawn": ("synth.tables.stages:save_measurements", False),
}
SAVED: Moments = {
    "all releases saved": ("synth.tables.stages:save_measurements", True),
    "measured": ("synth.stages:train", False),
    "fitted": ("synth.tables.stages:fit", True),
    "trained": ("synth.stages:sample", False),
    "drawing rows": ("synth.tables.stages:write_parts", True),
    "sampled": ("synth.stages:audit", False),
    "auditing": ("synth.tables.stages:audit_of_rows", True),
    "audited": ("synth.stages:evaluate", False),
    "evaluating": ("synth.tables.stages:internal_scores", True),
    "evaluated": ("synth.stages:settle", False),
    "settling": ("synth.privacy.ledger:Ledger.settle", True),
    "settled": ("pipelines.documents:document", False),
    "documenting": ("pipelines.documents:documents_of", True),
    "documented": ("synth.stages:seal", False),
    "sealed": ("synth.release:publish", False),
}
OTHERS: Moments = {"not reserved": ("synth.stages:reserve", False), "published": ("synth.release:publish", True)}
CRITIC: Moments = {
    "before the critic": ("synth.stages:refine", False),
    "the critic is charged": ("synth.privacy.dp_sgd:PrivateCritic.private_step", False),
    "the critic has learned": ("synth.tables.stages:refine_generators", True),
    "refined": ("synth.stages:sample", False),
}
PICTURES: Moments = {
    "all releases drawn": ("synth.images.stages:save_measurements", False),
    "all releases saved": ("synth.images.stages:save_measurements", True),
    "trained": ("synth.stages:sample", False),
    "evaluating": ("synth.images.stages:write_image_report", False),
    "settled": ("pipelines.documents:document", False),
}


HELD_OUT: Moments = {
    "encoded": ("synth.stages:measure", False),
    "measured": ("synth.stages:train", False),
    "scored": ("synth.stages:evaluate", False),
    "evaluated": ("synth.stages:settle", False),
}
ESTIMATED: Moments = {
    "reserved": ("synth.stages:encode", False),
    "estimated, not saved": ("synth.tables.stages:meeting_rules", False),
    "estimated": ("synth.tables.stages:encode_rows", False),
    "encoded": ("synth.stages:measure", False),
    "counting": ("synth.tables.measure:Measurer.measure", False),
    "all releases drawn": ("synth.tables.stages:save_measurements", False),
    "all releases saved": ("synth.tables.stages:save_measurements", True),
}


class Dead:
    """A folder whose run has died at any of some moments."""

    def __init__(self, folder: Path, copies: Path, flow: Callable[[Path, str], None]) -> None:
        self.folder, self.copies, self.flow = folder, copies, flow

    @property
    def run_yaml(self) -> Path:
        return self.folder / "run.yaml"

    @property
    def ledger(self) -> Ledger:
        return Ledger.open(self.url)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'ledger.db'}"

    @property
    def run(self) -> RunFolder:
        """The only run there is."""
        (path,) = (self.folder / "out").iterdir()
        return RunFolder(path)

    def leave_copies(self, moments: Moments) -> None:
        """Run once, and keep what lies on disk when each moment comes for the first time."""
        with pytest.MonkeyPatch.context() as patch:
            for name, (place, after) in moments.items():
                self._copy_at(patch, name, place, after=after)
            ledger = Ledger.open(self.url)
            self.flow(prepare(self.run_yaml, ledger).path, self.url)

    def _copy_at(self, patch: pytest.MonkeyPatch, name: str, place: str, *, after: bool) -> None:
        module_name, function_name = place.split(":")
        *owners, function = function_name.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module_name))
        real, destination = getattr(owner, function), self.copies / name

        def copying(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs) if after else None
            if not destination.exists():
                shutil.copytree(self.folder, destination)
            return result if after else real(*args, **kwargs)

        patch.setattr(owner, function, functools.wraps(real)(copying))

    def at(self, moment: str) -> Dead:
        """Everything as it was then."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.copies / moment, self.folder)
        return self

    def resumed(self) -> Path:
        """The bundle of the run, resumed."""
        folder = resume(self.run_yaml, self.ledger)
        self.flow(folder.path, self.url)
        return folder.bundle


@pytest.fixture(scope="module", autouse=True)
def one_audit_each() -> Iterator[None]:
    """What audits find is not asked here, and they take most of a run's time: each kind is made once."""

    def remembered(audit: Callable[..., Audit]) -> Callable[..., Audit]:
        found: list[Audit] = []

        def call(*args: Any, **kwargs: Any) -> Audit:
            if not found:
                found.append(audit(*args, **kwargs))
            return found[0]

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_stages, "audit_of_rows", remembered(audit_of_rows))
        patch.setattr(image_stages, "audit_of_images", remembered(audit_of_images))
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, clinic_at: Any, quick_flow: Any) -> Dead:
    """People with several rows, of whom the steward wants a report, killed wherever a run on a table can be."""
    place = tmp_path_factory.mktemp("table")
    clinic = clinic_at(place / "clinic")
    clinic.put("patient_nbr", [f"P{i // 3}" for i in range(clinic.table.num_rows)])
    clinic.schema |= {"privacy_unit": "patient_nbr", "max_rows_per_person": 2}
    dead = Dead(clinic.write().folder, place / "copies", quick_flow)
    dead.leave_copies(BEFORE_A_DRAW | LOST | SAVED | OTHERS)
    return dead


@pytest.fixture(scope="module")
def critic(tmp_path_factory: pytest.TempPathFactory, clinic_at: Any, quick_flow: Any) -> Dead:
    place = tmp_path_factory.mktemp("critic")
    clinic = clinic_at(place / "clinic")
    clinic.run["synthesizer"] |= {"critic_share": 0.5, "critic": {"steps": 4, "sample_rate": 0.1}}
    dead = Dead(clinic.write().folder, place / "copies", quick_flow)
    dead.leave_copies(CRITIC)
    return dead


@pytest.fixture
def drawn(drawn: list[int], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps of a critic too, each of which draws."""
    step = PrivateCritic.private_step

    def counted(self: PrivateCritic, *args: Any, **kwargs: Any) -> Any:
        drawn.append(1)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(PrivateCritic, "private_step", counted)
    return drawn


def assert_whole(dead: Dead, bundle: Path, synth: Any) -> None:
    """The run is what it would have been without its death: paid once, its bundle intact, nothing else left."""
    outcome = synth("verify", bundle, "--ledger", dead.url)
    assert outcome.code == 0, outcome.err
    (population,) = dead.ledger.populations()
    (run,) = population.charged
    assert (run.state, run.unspent, population.void) == ("settled", (), ())
    kinds = Counter(entry.kind for entry in dead.ledger.history())
    assert kinds == {"reserve": 1, "spend": len(run.events), "settle": 1}
    statement = json.loads((bundle / "privacy.json").read_text())["x_synth"]
    asked = load_run(dead.run_yaml).config.privacy.epsilon
    assert asked - 1e-3 <= statement["epsilon"] == population.epsilon <= asked
    assert statement["population"]["candidates"] == 1
    assert {path.name for path in bundle.parent.iterdir()} == {"bundle", "internal"}
    assert not [path for path in dead.folder.rglob("*") if path.name.endswith(".partial")]
    assert (bundle.parent / "internal" / "report.json").is_file()
    stages = [duration.stage for duration in noted_in(bundle.parent / "internal")]
    # What the process that died has noted stays; the last ones are of the one that went on.
    assert stages[0] == "reserve" and stages[-1] == "seal" and {"encode", "measure", "evaluate"} <= {*stages}
    assert not list((bundle.parent / "internal").glob("failure-*"))


@pytest.mark.parametrize("moment", SAVED)
def test_what_is_saved_is_gone_on_from(table: Dead, synth: Any, drawn: list[int], moment: str) -> None:
    dead = table.at(moment)
    measured = (dead.run.private / "measurements.safetensors").read_bytes()
    folder = resume(dead.run_yaml, dead.ledger)
    assert (folder.private / "measurements.safetensors").read_bytes() == measured
    dead.flow(folder.path, dead.url)
    assert drawn == []
    assert_whole(dead, folder.bundle, synth)


@pytest.mark.parametrize("moment", BEFORE_A_DRAW)
def test_a_run_that_has_drawn_nothing_goes_on(table: Dead, synth: Any, drawn: list[int], moment: str) -> None:
    dead = table.at(moment)
    bundle = dead.resumed()
    assert drawn
    assert_whole(dead, bundle, synth)


@pytest.mark.parametrize("moment", LOST)
def test_what_is_lost_stays_spent(table: Dead, synth: Any, moment: str) -> None:
    dead = table.at(moment)
    entries = dead.ledger.history()
    outcome = synth("run", dead.run_yaml, "--resume")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "lost what it drew" in outcome.err and "its budget stays spent; start a new run without" in outcome.err
    assert dead.ledger.history() == entries
    assert not dead.run.private.exists()
    population = dead.ledger.population("clinic-patients")
    assert population is not None and population.epsilon == 1.0


@pytest.mark.parametrize("moment", LOST)
def test_a_ledger_from_a_backup_lets_nothing_be_drawn_again(table: Dead, moment: str) -> None:
    """One that was copied after the reservation, and before anything was spent."""
    dead = table.at(moment)
    shutil.copy(dead.copies / "reserved" / "ledger.db", dead.folder)
    with pytest.raises(UserError, match="was the ledger restored from a backup"):
        resume(dead.run_yaml, dead.ledger)


def test_a_run_that_was_never_reserved_is_none(table: Dead) -> None:
    with pytest.raises(UserError, match="has no reservation in this ledger; start a new run without --resume"):
        resume(table.at("not reserved").run_yaml, table.ledger)


def test_a_finished_run_says_where_its_bundle_is(table: Dead) -> None:
    dead = table.at("published")
    with pytest.raises(UserError, match=r"is finished: its bundle is .*/bundle; start a new run"):
        resume(dead.run_yaml, dead.ledger)
    assert not dead.run.private.exists()


def test_private_rows_are_gone_before_anything_goes_on(table: Dead) -> None:
    dead = table.at("evaluating")
    assert {"encoded.arrow", "outside.json", "broken_rules.json"} <= {path.name for path in dead.run.private.iterdir()}
    folder = resume(dead.run_yaml, dead.ledger)
    kept = {path.name for path in folder.private.iterdir()}
    assert kept == {"measurements.json", "measurements.safetensors", "checkpoints", "facts", "bundle.partial"}


def test_half_written_files_are_not_published(table: Dead, synth: Any) -> None:
    dead = table.at("drawing rows")
    (dead.run.data / ".part-00000.parquet.1234.partial").write_bytes(b"half")
    (dead.run.data / "part-00007.parquet").write_bytes(b"of a longer draw")
    (dead.run.model / ".generator.safetensors.1234.partial").write_bytes(b"half")
    bundle = dead.resumed()
    assert_whole(dead, bundle, synth)
    assert [path.name for path in (bundle / "data").iterdir()] == ["part-00000.parquet"]


def test_the_source_is_looked_at_again_while_it_is_wanted(table: Dead, clinic_at: Any) -> None:
    dead = table.at("audited")
    source = dead.folder / "patients.parquet"
    kept = source.read_bytes()
    other = clinic_at(dead.folder.parent / "other")
    other.put("age", ["old"] * other.table.num_rows)
    shutil.copy(other.write().source, source)
    with pytest.raises(UserError, match=r"age"):
        resume(dead.run_yaml, dead.ledger)
    source.write_bytes(kept)
    assert dead.resumed().is_dir()


def test_without_its_source_a_scored_run_goes_on(table: Dead, synth: Any) -> None:
    dead = table.at("evaluated")
    (dead.folder / "patients.parquet").unlink()
    assert_whole(dead, dead.resumed(), synth)


CHANGES: dict[str, tuple[Callable[[Dead], Any], str]] = {
    "run.yaml": (lambda dead: dead.run_yaml.write_text(dead.run_yaml.read_text() + "\n"), "another run.yaml"),
    "schema.yaml": (lambda dead: _edit(dead.folder / "schema.yaml", dataset="other"), "another schema.yaml"),
    "no copies": (lambda dead: (dead.run.internal / "run.yaml").unlink(), "has lost the copies"),
    "version": (
        lambda dead: _edit(dead.run.internal / "run.json", software="dp-synth 0.0.9"),
        "was started by dp-synth 0.0.9, and this is dp-synth ",
    ),
    "environment": (lambda dead: _edit(dead.run.internal / "run.json", settings="0" * 64), "environment variables"),
    "ledger": (lambda dead: (dead.folder / "ledger.db").unlink(), "has no reservation in this ledger"),
    "a ledger from a backup": (
        lambda dead: shutil.copy(dead.copies / "reserved" / "ledger.db", dead.folder),
        "was the ledger restored from a backup",
    ),
    "moved": (lambda dead: _edit(dead.run.internal / "run.json", file="/elsewhere/run.yaml"), "no run of it is in"),
    "an audit's folder": (lambda dead: _edit(dead.run.internal / "run.json", makes="audit"), "no run of it is in"),
}


def _edit(file: Path, /, **changes: str) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_a_run_that_is_not_the_same_any_more_is_refused(table: Dead, change: Any, words: str) -> None:
    dead = table.at("trained")
    change(dead)
    with pytest.raises(UserError, match=words) as stop:
        resume(dead.run_yaml, dead.ledger)
    assert "\n" not in str(stop.value)


def test_values_of_the_environment_are_part_of_a_run(
    clinic: Any, quick_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.flow import Stopped  # Prefect reads its home when it is imported

    monkeypatch.setenv("STEPS", "20")
    clinic.run["synthesizer"]["steps"] = "${STEPS}"
    clinic.write()
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("synth.tables.stages.sample_rows_by", lambda *_: 1 / 0)
        quick_run(clinic.run_yaml)
    ledger = Ledger.open(clinic.ledger_url)
    monkeypatch.setenv("STEPS", "21")
    with pytest.raises(UserError, match="other values of the environment variables"):
        resume(clinic.run_yaml, ledger)
    monkeypatch.setenv("STEPS", "20")
    assert resume(clinic.run_yaml, ledger).saved


@pytest.mark.parametrize(
    ("moment", "change", "of_run_yaml", "of_folder"),
    [
        ("trained", None, "resumable", "resumable"),
        ("settled", None, "resumable", "resumable"),
        ("reserved", None, "resumable", "failed"),  # it has drawn nothing, which the ledger alone can tell
        ("all releases drawn", None, "failed", "failed"),
        ("published", None, "candidate", "candidate"),
        ("trained", "schema.yaml", "failed", "resumable"),
        ("trained", "an audit's folder", "failed", "failed"),
    ],
)
def test_a_list_of_runs_says_which_can_be_resumed(
    table: Dead, synth: Any, moment: str, change: str | None, of_run_yaml: str, of_folder: str
) -> None:
    dead = table.at(moment)
    if change:
        CHANGES[change][0](dead)
    for where, state in ((dead.run_yaml, of_run_yaml), (dead.folder / "out", of_folder)):
        (listed,) = json.loads(synth("runs", where, "--json").out)["runs"]
        assert listed["state"] == state
    prune(dead.folder / "out", keep=0, revocations=lambda _: [], now=datetime.now(UTC) + timedelta(hours=2))
    assert any((dead.folder / "out").iterdir()) == (of_folder != "failed")


def test_a_living_run_is_not_resumed(table: Dead) -> None:
    dead = table.at("trained")
    with hold(dead.run), pytest.raises(UserError, match="is under way in another process"):
        resume(dead.run_yaml, dead.ledger)


def test_of_two_that_resume_at_once_one_is_refused(table: Dead, synth: Any) -> None:
    """Both have found the run; the second comes while the first is at work, and once more when it has finished."""
    from pipelines.flow import Stopped  # Prefect reads its home when it is imported

    dead = table.at("trained")
    folder = resume(dead.run_yaml, dead.ledger)
    with hold(folder), pytest.raises(Stopped) as stop:
        dead.flow(folder.path, dead.url)
    assert "is under way in another process" in str(stop.value.reason)
    dead.flow(folder.path, dead.url)
    entries = dead.ledger.history()
    with pytest.raises(Stopped) as stop:
        dead.flow(folder.path, dead.url)
    assert "is finished: its bundle is" in str(stop.value.reason)
    assert dead.ledger.history() == entries
    assert_whole(dead, folder.bundle, synth)


def test_a_new_run_says_what_could_be_resumed_and_replaces_it(table: Dead, synth: Any) -> None:
    dead = table.at("sampled")
    earlier = dead.run
    run = load_run(dead.run_yaml)
    assert can_be_resumed(run, dead.ledger) == earlier
    folder = prepare(dead.run_yaml, dead.ledger)
    assert earlier.saved and not earlier.codes.exists()  # until the new one has its bundle
    assert can_be_resumed(run, dead.ledger) == earlier
    dead.flow(folder.path, dead.url)
    assert folder.bundle.is_dir() and not earlier.private.exists()
    assert can_be_resumed(run, dead.ledger) is None
    with pytest.raises(UserError, match=f"run {folder.run_id} is finished"):
        resume(dead.run_yaml, dead.ledger)
    population = dead.ledger.population("clinic-patients")
    assert population is not None and population.candidates == 2


@pytest.mark.parametrize("stage", ["train", "sample", "evaluate", "settle", "seal"])
def test_a_stage_that_fails_can_be_tried_again(
    table: Dead, synth: Any, monkeypatch: pytest.MonkeyPatch, drawn: list[int], stage: str
) -> None:
    from pipelines.flow import Stopped  # Prefect reads its home when it is imported

    dead = table.at("measured")
    body = {
        "train": "synth.tables.stages.fit",
        "sample": "synth.tables.stages.sample_rows_by",
        "evaluate": "synth.tables.stages.public_scores",
        "settle": "synth.stages.composed_mu",
        "seal": "synth.release.seal",
    }[stage]
    with monkeypatch.context() as patch, pytest.raises(Stopped, match=f"{stage}: StageFailed"):
        patch.setattr(body, lambda *_, **__: 1 / 0)
        dead.resumed()
    assert dead.run.saved and not dead.run.codes.exists()
    population = dead.ledger.population("clinic-patients")
    assert population is not None and population.epsilon == 1.0 and len(population.open) == (stage != "seal")
    (dead.run.internal / f"failure-{stage}.txt").unlink()
    assert_whole(dead, dead.resumed(), synth)
    assert drawn == []


def test_a_refuted_claim_is_not_asked_about_again(table: Dead, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.flow import Stopped  # Prefect reads its home when it is imported

    dead = table.at("sampled")
    real = vars(table_stages)["audit_of_rows"]
    with monkeypatch.context() as patch, pytest.raises(Stopped, match="audit: ClaimRefuted"):
        patch.setattr(table_stages, "audit_of_rows", lambda *a, **k: replace(real(*a, **k), refuted=True))
        dead.resumed()
    assert not dead.run.private.exists()
    with pytest.raises(UserError, match="was given up; what it spent stays spent"):
        resume(dead.run_yaml, dead.ledger)


@pytest.mark.parametrize("moment", ["before the critic", "refined"])
def test_a_run_goes_on_before_and_after_its_critic(critic: Dead, synth: Any, drawn: list[int], moment: str) -> None:
    dead = critic.at(moment)
    bundle = dead.resumed()
    assert drawn == ([1] * 4 if moment == "before the critic" else [])
    assert "Refining:" in (bundle / "privacy.json").read_text()
    assert_whole(dead, bundle, synth)


@pytest.mark.parametrize("moment", ["the critic is charged", "the critic has learned"])
def test_a_critic_that_was_interrupted_is_lost(critic: Dead, drawn: list[int], moment: str) -> None:
    dead = critic.at(moment)
    with pytest.raises(UserError, match=r"died while its critic learned.* so that its budget stays spent"):
        resume(dead.run_yaml, dead.ledger)
    assert drawn == [] and not dead.run.private.exists()


def test_who_was_held_out_is_not_chosen_again(
    tmp_path: Path, clinic_at: Any, quick_flow: Any, synth: Any, drawn: list[int]
) -> None:
    """Or a person could be measured and then scored, which costs more than the larger of the two."""
    clinic = clinic_at(tmp_path / "clinic")
    clinic.run["evaluation"] = {"holdout": 0.3}
    dead = Dead(clinic.write().folder, tmp_path / "copies", quick_flow)
    dead.leave_copies(HELD_OUT)
    drawn.clear()
    for moment in ("measured", "scored"):
        with pytest.raises(UserError, match="lost what it drew, or whom it held out"):
            resume(dead.at(moment).run_yaml, dead.ledger)
        assert drawn == [] and not dead.run.private.exists()
    for moment in ("evaluated", "encoded"):
        assert_whole(dead, dead.at(moment).resumed(), synth)
        assert bool(drawn) == (moment == "encoded")


def pictures(folder: Path) -> Path:
    """A run.yaml on sixty pictures of two classes."""
    folder.mkdir()
    rng, files = np.random.default_rng(0), []
    for i in range(60):
        content = BytesIO()
        Image.fromarray(rng.integers(100 * (i % 2), 100 + 100 * (i % 2), (8, 8)).astype(np.uint8)).save(content, "PNG")
        files.append({"bytes": content.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.table({"image": pa.array(files, kind), "label": [i % 2 for i in range(60)]})
    pq.write_table(rows, folder / "pictures.parquet")
    schema = {
        "dataset": "pictures",
        "kind": "image",
        "image": {"height": 8, "width": 8, "channels": 1, "bits": 8, "value_range": [0, 255], "resize": "pad"},
        "target": {"name": "label", "classes": {0: "dark", 1: "light"}},
        "privacy_unit": "row",
    }
    run = {
        "source": {"path": "pictures.parquet"},
        "schema": "schema.yaml",
        "privacy": {"epsilon": 8.0, "delta": 1e-5},
        "ledger": {"url": "sqlite:///ledger.db"},
    }
    (folder / "schema.yaml").write_text(json.dumps(schema))
    (folder / "run.yaml").write_text(json.dumps(run))
    return folder


def test_pictures_too(tmp_path: Path, quick_flow: Any, synth: Any, drawn: list[int]) -> None:
    dead = Dead(pictures(tmp_path / "ward"), tmp_path / "copies", quick_flow)
    dead.leave_copies(PICTURES)
    drawn.clear()
    for moment in PICTURES:
        dead.at(moment)
        if moment == "all releases drawn":
            with pytest.raises(UserError, match="lost what it drew"):
                dead.resumed()
            continue
        assert (dead.run.private / "pictures.arrow").exists() == (moment != "settled")
        resume(dead.run_yaml, dead.ledger)
        assert not (dead.run.private / "pictures.arrow").exists()
        bundle = dead.resumed()
        assert_whole(dead, bundle, synth)
        report = json.loads((bundle.parent / "internal" / "report.json").read_text())
        assert {"encode", "evaluate"} <= {entry["stage"] for entry in report["durations"]}
        assert "Time and memory" in (bundle.parent / "internal" / "report.html").read_text()
        assert len(list((bundle / "pictures").iterdir())) == 5
    assert drawn == []


def test_a_prefect_that_does_not_start_leaves_a_resumed_run(
    table: Dead, synth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gives_up(*_: object) -> None:
        raise SynthError("Prefect's server did not start")

    dead = table.at("trained")
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.server._wait", gives_up)
        another, outcome = synth("run", dead.run_yaml), synth("run", dead.run_yaml, "--resume")
    assert (another.code, outcome.code, another.out + outcome.out) == (1, 1, "")
    assert "Prefect's server did not start" in outcome.err
    told = f"warning: run {dead.run.run_id} has died and is paid for; --resume would go on with it"
    assert told in another.err.splitlines() and told not in outcome.err
    assert dead.run.saved
    assert_whole(dead, dead.resumed(), synth)


@pytest.fixture(scope="module")
def estimated(tmp_path_factory: pytest.TempPathFactory, clinic_at: Any, quick_flow: Any) -> Dead:
    place = tmp_path_factory.mktemp("estimated")
    clinic = clinic_at(place / "clinic")
    clinic.column("age")["bounds"] = clinic.column("bmi")["bounds"] = "estimate"
    dead = Dead(clinic.write().folder, place / "copies", quick_flow)
    dead.leave_copies(ESTIMATED)
    return dead


@pytest.mark.parametrize("moment", ["estimated", "counting", "all releases saved"])
def test_bounds_are_estimated_once(estimated: Dead, synth: Any, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    dead = estimated.at(moment)
    found = dead.run.bounds.read_bytes()
    monkeypatch.delattr(table_stages, "estimate_bounds")
    bundle = dead.resumed()
    assert (bundle.parent / "internal" / "bounds.json").read_bytes() == found
    columns = json.loads((bundle / "model" / "config.json").read_text())["schema"]["columns"]
    bounds = {column["name"]: column.get("bounds") for column in columns}
    assert bounds["age"] == json.loads(found)["age"]["bounds"]
    assert_whole(dead, bundle, synth)


@pytest.mark.parametrize("moment", ["estimated, not saved", "all releases drawn"])
def test_bounds_that_are_lost_stay_spent(estimated: Dead, moment: str) -> None:
    dead = estimated.at(moment)
    with pytest.raises(UserError, match="lost what it drew"):
        resume(dead.run_yaml, dead.ledger)
    assert dead.ledger.charged(dead.run.run_id)


def test_estimated_bounds_need_the_ledger_that_paid_for_them(estimated: Dead) -> None:
    dead = estimated.at("estimated")
    shutil.copy(dead.copies / "reserved" / "ledger.db", dead.folder / "ledger.db")
    with pytest.raises(UserError, match="was the ledger restored from a backup"):
        resume(dead.run_yaml, dead.ledger)


def test_a_failure_after_the_estimate_can_be_resumed(estimated: Dead, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run has drawn, so it is charged; what it drew is saved, so that nothing is lost."""
    dead = estimated.at("reserved")
    with monkeypatch.context() as patch:
        patch.setattr(table_stages, "encode_rows", lambda *_, **__: 1 / 0)
        with pytest.raises(Exception, match="encode"):
            dead.resumed()
    assert dead.ledger.charged(dead.run.run_id) and dead.run.estimated
    found = dead.run.bounds.read_bytes()
    assert dead.resumed().is_dir() and dead.run.bounds.read_bytes() == found
