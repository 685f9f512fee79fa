"""The audit of a run: inside of it on its own synthetic rows, and by `synth audit`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.documents import document
from synth import stages
from synth.errors import SynthError
from synth.prepare import prepare
from synth.privacy.audit import long, one_run
from synth.privacy.ledger import Ledger
from synth.privacy.noise import NoiseSource
from synth.release import seal, verify
from synth.run_folder import RunFolder, hold

NEVER = "can refute epsilon, never prove it"


class TenTimesTooSmall(NoiseSource):
    def standard_normal(self, count: int) -> np.ndarray:
        return super().standard_normal(count) / 10


def ran(clinic: Any, *, until: str = "seal") -> tuple[RunFolder, Ledger]:
    """A run without Prefect, as far as a stage."""
    ledger = Ledger.open(clinic.ledger_url)
    folder = prepare(clinic.run_yaml, ledger)
    steps: dict[str, Callable[[], object]] = {
        "reserve": lambda: stages.reserve(folder, ledger),
        "encode": lambda: stages.encode(folder),
        "measure": lambda: stages.measure(folder, ledger),
        "train": lambda: stages.train(folder),
        "sample": lambda: stages.sample(folder),
        "audit": lambda: stages.audit(folder),
        "evaluate": lambda: stages.evaluate(folder),
        "settle": lambda: stages.settle(folder, ledger),
        "document": lambda: document(folder),
        "seal": lambda: stages.seal(folder),
    }
    with hold(folder):
        try:
            for name, step in steps.items():
                step()
                if name == until:
                    break
        except SynthError:
            stages.give_up(folder, ledger)
            raise
    return folder, ledger


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, clinic_at: Any) -> tuple[Any, Path]:
    clinic = clinic_at(tmp_path_factory.mktemp("audited") / "clinic")
    folder, _ = ran(clinic)
    return clinic, folder.bundle


def test_a_bundle_says_what_its_audit_found(finished: tuple[Any, Path]) -> None:
    _, bundle = finished
    assert verify(bundle).run_id
    statement = json.loads((bundle / "privacy.json").read_text())["x_synth"]["audit"]
    quality = json.loads((bundle / "quality.json").read_text())["audit"]
    internal = json.loads((bundle.parent / "internal" / "audit.json").read_text())
    assert NEVER in statement.pop("reading")
    assert statement == quality == internal
    assert statement["claimed_epsilon"] == 1.0
    assert statement["epsilon_lower_bound"] < 1.0
    assert statement["canaries"] == one_run.CANARIES
    assert len(statement["guesses"]) == len(statement["correct"]) == len(one_run.GUESSED)
    assert statement["rows"] == json.loads((bundle / "quality.json").read_text())["rows"]
    assert not any("second" in key for key in statement)  # how long it took is nobody's business
    for page in ("datasheet.html", "datasheet.md", "datasheet.json", "quality.html"):
        assert NEVER in " ".join((bundle / page).read_text().split()), page


def test_a_refuted_run_publishes_nothing_and_stays_charged(clinic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_run, "NoiseSource", TenTimesTooSmall)
    with pytest.raises(SynthError, match=r"contradict the claimed ε=1 .*nothing is published, and the budget") as stop:
        ran(clinic)
    assert stop.value.exit_code == 1
    (run,) = clinic.out.iterdir()
    assert {path.name for path in run.iterdir()} == {"internal"}
    assert (run / "internal" / "audit.json").exists()
    account = Ledger.open(clinic.ledger_url).population("clinic-patients")
    assert account is not None and account.epsilon == 1.0


def test_the_audit_in_a_run_opens_no_private_row(clinic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger.open(clinic.ledger_url)
    folder = prepare(clinic.run_yaml, ledger)
    with hold(folder):
        for stage in (stages.reserve, stages.measure):
            if stage is stages.measure:
                stages.encode(folder)
            stage(folder, ledger)
        stages.train(folder)
        stages.sample(folder)
        spent = clinic.ledger.read_bytes()
        clinic.source.unlink()
        folder.codes.unlink()
        stages.audit(folder)
        assert folder.noted("audit")["canaries"] == one_run.CANARIES
        assert clinic.ledger.read_bytes() == spent


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shadow tables of a size for tests."""
    monkeypatch.setattr(long, "SHADOW_ROWS", 50)
    monkeypatch.setattr(
        long,
        "SMALL_FIT",
        long.FitSettings(
            members=1, steps=2, latent_points=8, hidden_size=8, learning_rate=3e-3, accelerator="cpu", threads=1
        ),
    )


@pytest.mark.usefixtures("small")
def test_a_bundle_is_audited_for_free(
    finished: tuple[Any, Path], synth: Any, shared: Callable[[Path], list[str]]
) -> None:
    clinic, bundle = finished
    spent, before = clinic.ledger.read_bytes(), {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    outcome = synth("audit", clinic.run_yaml, "--bundle", bundle, "--repetitions", 8, "--canaries", 50)
    assert outcome.code == 0, outcome.err
    page = Path(outcome.out.splitlines()[-1])
    assert outcome.out.count("\n") == 1
    assert page.parent.name == "internal" and page.parents[1].name.startswith("audit-")
    assert page.parents[2] == clinic.out
    assert {path.name for path in page.parents[1].iterdir()} == {"internal"}
    assert shared(page.parents[1]) == []
    assert "repetition 8 of 8" in outcome.err and "cost no budget" in outcome.err
    assert clinic.ledger.read_bytes() == spent
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before
    report = json.loads(page.with_suffix(".json").read_text())
    assert (report["rows_of"], report["charged"], report["refuted"]) == ("bundle", False, False)
    assert report["one_run"]["canaries"] == 50
    assert report["shadow"]["repetitions"] == 8
    assert [attack["members"] for attack in report["shadow"]["attacks"]] == [2, 2, 2]
    assert NEVER in page.read_text()


def public(clinic: Any) -> Path:
    """A table of the run's schema that the steward declares public."""
    path = clinic.folder / "public.parquet"
    pq.write_table(clinic.table, path)
    return path


def test_a_public_table_is_audited_for_free(clinic: Any, synth: Any) -> None:
    table = public(clinic)
    clinic.source.unlink()  # the run's own source is not even there
    outcome = synth("audit", clinic.run_yaml, "--public-table", table, "--repetitions", 0, "--canaries", 200, "--json")
    assert outcome.code == 0, outcome.err
    answer = json.loads(outcome.out)
    report = json.loads(Path(answer["report"]).with_suffix(".json").read_text())
    assert (answer["refuted"], report["rows_of"], report["shadow"]) == (False, "public table", None)
    assert "is the declaration of whoever named it" in Path(answer["report"]).read_text()
    assert report["one_run"]["rows"] == clinic.table.num_rows
    assert not clinic.ledger.exists()


def test_an_audit_of_people_bounds_a_public_table(clinic: Any, synth: Any) -> None:
    clinic.schema |= {"privacy_unit": "patient_nbr", "max_rows_per_person": 2}
    rows = clinic.table.num_rows
    clinic.put("patient_nbr", [f"P{i // 4}" for i in range(rows)])
    clinic.write()
    outcome = synth(
        "audit", clinic.run_yaml, "--public-table", public(clinic), "--repetitions", 0, "--canaries", 20, "--json"
    )
    assert outcome.code == 0, outcome.err
    report = json.loads(Path(json.loads(outcome.out)["report"]).with_suffix(".json").read_text())
    assert report["one_run"]["rows"] == rows // 2
    assert report["one_run"]["rows_per_canary"] == 2


def test_private_rows_are_charged_and_capped(clinic: Any, synth: Any) -> None:
    outcome = synth("audit", clinic.run_yaml, "--canaries", 50)
    assert outcome.code == 0, outcome.err
    report = json.loads(Path(outcome.out.strip()).with_suffix(".json").read_text())
    assert (report["rows_of"], report["charged"], report["shadow"]) == ("private rows", True, None)
    ledger = Ledger.open(clinic.ledger_url)
    account = ledger.population("clinic-patients")
    assert account is not None and account.epsilon == 1.0
    ledger.set_cap("clinic-patients", 1.2)
    clinic.source.unlink()  # refused before it is looked for
    refused = synth("audit", clinic.run_yaml)
    assert (refused.code, refused.out, refused.err.count("\n")) == (3, "", 1)
    assert len(list(clinic.out.iterdir())) == 1


def test_a_failed_audit_of_private_rows_is_charged_once_it_drew(
    clinic: Any, synth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise ValueError("zq-canary-text")

    with monkeypatch.context() as patch:
        patch.setattr(long, "encode_source", stop)
        early = synth("audit", clinic.run_yaml)
    account = Ledger.open(clinic.ledger_url).population("clinic-patients")
    assert account is not None and account.epsilon == 0
    monkeypatch.setattr(one_run, "tables_of", stop)
    late = synth("audit", clinic.run_yaml)
    account = Ledger.open(clinic.ledger_url).population("clinic-patients")
    assert account is not None and account.epsilon == 1.0
    for outcome in (early, late):
        assert (outcome.code, outcome.out) == (1, "")
        assert "zq-canary-text" not in outcome.err
    assert not any(clinic.out.glob("*/private"))


def test_a_refuted_claim_ends_with_1_after_the_report(clinic: Any, synth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_run, "NoiseSource", TenTimesTooSmall)
    table = public(clinic)
    outcome = synth("audit", clinic.run_yaml, "--public-table", table, "--repetitions", 0, "--canaries", 400)
    assert outcome.code == 1
    assert "refutes the claim" in Path(outcome.out.strip()).read_text()
    assert "the claim is refuted" in outcome.err


def test_what_private_rows_show_stands_in_the_page_alone(
    clinic: Any, synth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they refute the claim depends on them exactly: neither exit code nor terminal may tell."""
    audited = one_run.one_run_audit
    told = []
    for refuted in (False, True):

        def found(*arguments: Any, refuted: bool = refuted, **options: Any) -> one_run.Audit:
            return replace(audited(*arguments, **options), refuted=refuted)

        monkeypatch.setattr(long, "one_run_audit", found)
        outcome = synth("audit", clinic.run_yaml, "--canaries", 50, "--json")
        page = Path(json.loads(outcome.out)["report"])
        assert json.loads(page.with_suffix(".json").read_text())["refuted"] is refuted
        told.append((outcome.code, *(text.replace(page.parts[-3], "RUN") for text in (outcome.out, outcome.err))))
    assert told[0] == told[1]
    assert told[0][0] == 0 and '"refuted": null' in told[0][1] and "in the page alone" in told[0][2]


def test_never_into_a_bundle(finished: tuple[Any, Path], clinic: Any, synth: Any) -> None:
    clinic.run["output"] = {"directory": str(finished[1] / "data")}
    clinic.run_yaml.write_text(json.dumps(clinic.run))
    for command in (("audit", clinic.run_yaml), ("run", clinic.run_yaml)):
        outcome = synth(*command)
        assert (outcome.code, outcome.out) == (2, "")
        assert "output.directory" in outcome.err and "lies in a bundle" in outcome.err
    assert [path.name for path in (finished[1] / "data").iterdir()] == ["part-00000.parquet"]


ALIASES: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda alias, source: alias.symlink_to(source),
    "a hard link": lambda alias, source: alias.hardlink_to(source),
    "a folder with a link": lambda alias, source: (alias.mkdir(), (alias / "part.parquet").symlink_to(source)),
}


@pytest.mark.parametrize("make", ALIASES.values(), ids=ALIASES)
@pytest.mark.parametrize("folder", [False, True])
def test_the_runs_source_is_no_public_table(
    clinic: Any, synth: Any, folder: bool, make: Callable[[Path, Path], object]
) -> None:
    source = clinic.source
    if folder:
        source = clinic.folder / "patients" / "part-0.parquet"
        source.parent.mkdir()
        clinic.source.rename(source)
        clinic.run["source"] = {"path": "patients"}
        clinic.run_yaml.write_text(json.dumps(clinic.run))
    alias = clinic.folder / "alias"
    make(alias, source)
    for table in (source, source.parent / "x" / ".." / source.name, alias, *([source.parent] if folder else [])):
        (source.parent / "x").mkdir(exist_ok=True)
        outcome = synth("audit", clinic.run_yaml, "--public-table", table)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert "whose rows are private" in outcome.err
    assert not clinic.out.exists()


def test_only_synthetic_rows_are_free(finished: tuple[Any, Path], synth: Any, tmp_path: Path) -> None:
    """A folder like a bundle, a bundle whose rows were exchanged, and one sealed over rows without the mark."""
    clinic, bundle = finished
    part = bundle / "data" / "part-00000.parquet"
    private = pq.read_table(clinic.source).select(pq.read_schema(part).names).cast(pq.read_schema(part))
    fake, changed, sealed = tmp_path / "fake", tmp_path / "changed", tmp_path / "sealed"
    (fake / "data").mkdir(parents=True)
    for copy in (changed, sealed):
        shutil.copytree(bundle, copy)
    for folder in (fake, changed, sealed):
        completed = private.replace_schema_metadata({"completed": "holds the rows of the input"})
        pq.write_table(completed, folder / "data" / part.name)
    seal(sealed)
    runs = {path.name for path in clinic.out.iterdir()}
    for folder, code, words in (
        (fake, 4, "not a finished bundle"),
        (changed, 4, "has been changed"),
        (sealed, 2, "is not marked as synthetic"),
    ):
        outcome = synth("audit", clinic.run_yaml, "--bundle", folder, "--repetitions", 0, "--canaries", 20)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (code, "", 1)
        assert words in outcome.err
    assert {path.name for path in clinic.out.iterdir()} == runs


def test_mistakes_are_told_in_one_line(finished: tuple[Any, Path], clinic: Any, synth: Any, tmp_path: Path) -> None:
    _, bundle = finished
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    pq.write_table(clinic.table.select(["age"]), other / "data" / "part-00000.parquet")
    seal(other)
    calls = {
        ("--bundle", tmp_path / "missing"): "name a bundle folder",
        ("--bundle", other): "has another schema",
        ("--bundle", bundle, "--public-table", clinic.source): "name one of them",
        ("--public-table", tmp_path / "missing.parquet"): "no such file",
        ("--repetitions", 8): "would spend the budget again",
        ("--bundle", bundle, "--repetitions", 7): "a multiple of 4",
        ("--bundle", bundle, "--canaries", 3): "--canaries",
    }
    for arguments, words in calls.items():
        outcome = synth("audit", clinic.run_yaml, *arguments)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), arguments
        assert words in outcome.err
    assert not clinic.out.exists()
