"""`synth run` as a user types it, and what can be done with its bundle."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from datasheets.questions import sections
from synth.files import canonical_json, sha256_file

BUNDLE = {
    "attestation.json",
    "croissant.json",
    "data/part-00000.parquet",
    "datasheet.html",
    "datasheet.json",
    "datasheet.md",
    "dictionary.md",
    "manifest.json",
    "model/config.json",
    "model/generator.safetensors",
    "privacy.json",
    "quality.html",
    "quality.json",
    "schema.yaml",
    "tableschema.json",
}
STAGES = ("prepare", "reserve", "encode", "measure", "train", "sample", "audit", "evaluate", "settle", "seal", "next")
TYPES = {
    "patient_nbr": pa.string(),
    "age": pa.int64(),
    "bmi": pa.float64(),
    "sex": pa.string(),
    "ward": pa.string(),
    "grade": pa.int64(),
    "admitted": pa.timestamp("us"),
    "died": pa.bool_(),
}


def types(table: pa.Table) -> dict[str, pa.DataType]:
    return dict(zip(table.schema.names, table.schema.types, strict=True))


class Finished(NamedTuple):
    clinic: Any
    first: Any
    second: Any
    bundle: Path
    prefect: Path
    temporary: Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, clinic_at: Any, process: Any) -> Finished:
    """Two runs on the same people by the real command, with a Prefect that has never run."""
    folder = tmp_path_factory.mktemp("finished")
    clinic = clinic_at(folder / "clinic")
    (folder / "tmp").mkdir(mode=0o700)
    environment = {"PREFECT_HOME": str(folder / "prefect"), "TMPDIR": str(folder / "tmp")}
    first = process("run", clinic.run_yaml, environment=environment)
    with closing(sqlite3.connect(folder / "prefect" / "prefect.db")) as known, known:
        known.execute("UPDATE flow_run SET end_time = datetime(end_time, '-91 days')")
        assert known.total_changes == 1
    second = process("run", clinic.run_yaml, "--json", environment=environment)
    return Finished(clinic, first, second, first.bundle, folder / "prefect", folder / "tmp")


@pytest.fixture
def bundle(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the first bundle, to be damaged."""
    copy = tmp_path / "bundle"
    for name in BUNDLE:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((finished.bundle / name).read_bytes())
    return copy


def test_stdout_is_the_bundle_alone(finished: Finished) -> None:
    assert finished.first.out == f"{finished.bundle}\n"
    assert finished.bundle.is_absolute() and finished.bundle.name == "bundle"
    assert finished.bundle.parent.parent == finished.clinic.out


def test_stderr_is_our_plain_lines_alone(finished: Finished) -> None:
    for outcome in (finished.first, finished.second):
        names = [line.split(":")[0] for line in outcome.err.splitlines()]
        assert tuple(dict.fromkeys(names)) == STAGES
    first, second = (outcome.err.splitlines() for outcome in (finished.first, finished.second))
    assert first[0].endswith(", which has no entries yet") and second[0].endswith(".db")
    report = finished.bundle.parent / "internal" / "report.html"
    assert first[-1].startswith(f"next: read {report} (for you alone)") and "approve" in first[-1]


def test_json_is_one_object(finished: Finished) -> None:
    printed = json.loads(finished.second.out)
    assert list(printed) == ["bundle"]
    assert Path(printed["bundle"]).is_dir() and printed["bundle"] != str(finished.bundle)


def test_the_bundle_holds_what_the_contract_says(finished: Finished) -> None:
    found = {path.relative_to(finished.bundle).as_posix() for path in finished.bundle.rglob("*") if path.is_file()}
    assert found == BUNDLE


def test_the_run_folder_keeps_the_bundle_and_the_internal_report(finished: Finished) -> None:
    run = finished.bundle.parent
    assert {path.name for path in run.iterdir()} == {"bundle", "internal"}
    assert {path.name for path in (run / "internal").iterdir()} == {
        "audit.json",
        "drew",
        "durations.json",
        "facts.json",
        "report.html",
        "report.json",
        "run.json",
        "run.yaml",
        "schema.yaml",
    }
    assert stat.S_IMODE((run / "internal").stat().st_mode) == 0o700


def test_everything_is_its_owners_alone(finished: Finished, shared: Callable[[Path], list[str]]) -> None:
    for place in (finished.clinic.out, finished.clinic.ledger, finished.prefect, finished.temporary):
        assert place.exists()
        assert shared(place) == []


def test_nothing_is_left_in_the_temporary_folder(finished: Finished) -> None:
    assert [path for path in finished.temporary.rglob("*") if not path.is_dir()] == []


def test_prefect_forgets_runs_of_long_ago(finished: Finished) -> None:
    """Of two runs the first was dated back before the second; what is kept of a run goes with it."""
    with closing(sqlite3.connect(finished.prefect / "prefect.db")) as known:
        counts = {
            table: known.execute(f"SELECT count(DISTINCT {run}) FROM {table}").fetchone()[0]
            for table, run in (("flow_run", "id"), ("task_run", "flow_run_id"), ("flow_run_state", "flow_run_id"))
        }
    assert counts == {"flow_run": 1, "task_run": 1, "flow_run_state": 1}


def test_types_and_domains_of_the_rows(finished: Finished) -> None:
    table = pq.read_table(finished.bundle / "data" / "part-00000.parquet")
    assert types(table) == TYPES
    assert 200 < table.num_rows < 600
    age, bmi, admitted = (table[name].drop_null() for name in ("age", "bmi", "admitted"))
    assert pc.min(age).as_py() >= 18 and pc.max(age).as_py() <= 90
    assert pc.min(bmi).as_py() >= 10 and pc.max(bmi).as_py() <= 60
    assert all(value == round(value, 1) for value in bmi.to_pylist())
    assert datetime(2015, 1, 1) <= pc.min(admitted).as_py() <= pc.max(admitted).as_py() <= datetime(2021, 1, 1)
    assert all((value.hour, value.minute) == (0, 0) for value in admitted.to_pylist())
    assert set(table["sex"].to_pylist()) <= {"female", "male"}
    assert set(table["grade"].to_pylist()) <= {1, 2, 3}
    assert {name for name in table.column_names if table[name].null_count} <= {"bmi", "ward"}
    assert len(set(table["patient_nbr"].to_pylist())) == table.num_rows


def test_metadata_of_the_rows(finished: Finished) -> None:
    metadata = pq.read_schema(finished.bundle / "data" / "part-00000.parquet").metadata
    assert {key.decode(): value.decode() for key, value in metadata.items()} == {
        "synthetic": "true",
        "digital_source_type": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
        "epsilon": "1.0",
        "delta": "1e-05",
        "privacy_unit": "row",
        "run": finished.bundle.parent.name,
        "schema_sha256": hashlib.sha256((finished.bundle / "schema.yaml").read_bytes()).hexdigest(),
    }


def test_the_statement_adds_up_over_runs(finished: Finished) -> None:
    second = Path(json.loads(finished.second.out)["bundle"])
    one, two = (json.loads((b / "privacy.json").read_text())["x_synth"] for b in (finished.bundle, second))
    assert (one["epsilon"], one["delta"], one["population"]["candidates"]) == (1.0, 1e-5, 1)
    assert two["population"]["candidates"] == 2
    assert one["population"]["epsilon"] == pytest.approx(1.0, abs=1e-5)
    assert two["population"]["epsilon"] == pytest.approx(1.465, abs=5e-4)


# ---- budget ----


def test_budget_of_two_runs(finished: Finished, synth: Any) -> None:
    shown = json.loads(synth("budget", "show", "clinic-patients", "--ledger", finished.clinic.ledger_url, "--json").out)
    assert shown["epsilon"] == pytest.approx(1.465, abs=5e-4)
    assert (len(shown["charged_runs"]), shown["open_runs"], shown["void_runs"]) == (2, [], [])
    history = json.loads(synth("budget", "history", "--ledger", finished.clinic.ledger_url, "--json").out)["entries"]
    kinds = [entry["kind"] for entry in history]
    assert (kinds[0], kinds[-1]) == ("reserve", "settle")
    assert kinds.count("reserve") == kinds.count("settle") == 2
    reserved = [event["name"] for event in history[0]["payload"]["events"]]
    assert [e["payload"]["event"]["name"] for e in history if e["kind"] == "spend"] == 2 * reserved
    assert synth("budget", "verify", "--ledger", finished.clinic.ledger_url).code == 0


def test_a_cap_after_the_fact(finished: Finished, synth: Any, tmp_path: Path) -> None:
    copy = tmp_path / "ledger.db"
    copy.write_bytes(finished.clinic.ledger.read_bytes())
    url = f"sqlite:///{copy}"
    assert synth("budget", "cap", "clinic-patients", "1.8", "--ledger", url).code == 0
    refused = synth("run", finished.clinic.run_yaml, "--ledger", url)
    assert (refused.code, refused.out) == (3, "")
    assert "1.8" in refused.err and refused.err.count("\n") == 1


# ---- verify ----


def test_verify_of_a_candidate(finished: Finished, synth: Any) -> None:
    outcome = synth("verify", finished.bundle)
    assert outcome.code == 0
    assert "intact, NOT approved" in outcome.out
    found = json.loads(synth("verify", finished.bundle, "--json").out)
    assert (found["intact"], found["approved"], found["ledger_checked"]) == (True, False, False)
    assert (found["epsilon"], found["files"], found["run_id"]) == (1.0, len(BUNDLE) - 2, finished.bundle.parent.name)


def test_verify_against_ledgers(finished: Finished, synth: Any, tmp_path: Path) -> None:
    found = synth("verify", finished.bundle, "--ledger", finished.clinic.ledger_url)
    assert found.code == 0 and "ledger entry was found" in found.out
    other = f"sqlite:///{tmp_path / 'other.db'}"
    synth("budget", "cap", "someone", "1", "--ledger", other)
    assert synth("verify", finished.bundle, "--ledger", other).code == 4


def test_verify_with_a_public_key_refuses_a_candidate(finished: Finished, synth: Any, tmp_path: Path) -> None:
    key = tmp_path / "key.pub"
    key.write_text("key")
    outcome = synth("verify", finished.bundle, "--public-key", key)
    assert outcome.code == 4 and "NOT approved" not in outcome.out


def test_verify_needs_neither_torch_nor_prefect(finished: Finished) -> None:
    script = f"""
import sys
sys.argv = ["synth", "verify", {str(finished.bundle)!r}]
from pipelines.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
print(sorted({{"torch", "prefect", "pytorch_lightning"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# ---- document, approve, release ----


@pytest.fixture
def run_folder(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the first run's folder."""
    return Path(shutil.copytree(finished.bundle.parent, tmp_path / finished.bundle.parent.name))


@pytest.fixture
def answers(tmp_path: Path, every_answer: str) -> Path:
    """An answers.yaml without a gap, but for the calls for comments."""
    path = tmp_path / "answers.yaml"
    path.write_text(f"title: The Clinic\n{every_answer}")
    return path


def test_a_candidate_is_documented_again_without_budget(
    finished: Finished, run_folder: Path, answers: Path, synth: Any, shared: Callable[[Path], list[str]]
) -> None:
    bundle, spent = run_folder / "bundle", finished.clinic.ledger.read_bytes()
    empty = answers.with_name("empty.yaml")
    empty.write_text("")
    before = {path: path.read_bytes() for path in sorted(bundle.rglob("*")) if path.is_file()}
    assert synth("document", bundle, "--answers", empty).out == f"{bundle}\n"
    assert {path: path.read_bytes() for path in before} == before  # the same answers, the same bytes
    outcome = synth("document", bundle, "--answers", answers)
    assert (outcome.code, outcome.out, outcome.err) == (
        0,
        f"{bundle}\n",
        "every question that an approval wants is answered\n",
    )
    changed = {path.name for path in before if path.read_bytes() != before[path]}
    named = {"attestation.json", "croissant.json", "manifest.json", "privacy.json"}
    assert changed == named | {"datasheet.html", "datasheet.json", "datasheet.md"}
    assert json.loads((bundle / "datasheet.json").read_bytes())["title"] == "The Clinic"
    assert {path.name for path in run_folder.iterdir()} == {"bundle", "internal"}
    assert (run_folder / "internal" / "answers.yaml").read_bytes() == answers.read_bytes()
    assert shared(run_folder) == []
    assert "NOT approved" in synth("verify", bundle, "--ledger", finished.clinic.ledger_url).out
    assert finished.clinic.ledger.read_bytes() == spent


def test_facts_of_another_run_do_not_document_a_bundle(
    finished: Finished, run_folder: Path, answers: Path, synth: Any
) -> None:
    other = Path(json.loads(finished.second.out)["bundle"]).parent / "internal" / "facts.json"
    facts = run_folder / "internal" / "facts.json"
    better = facts.read_text().replace('"epsilon":1.0', '"epsilon":0.1', 1)
    assert better != facts.read_text()
    before = (run_folder / "bundle" / "manifest.json").read_bytes()
    for content in (other.read_text(), better, "{}"):
        facts.write_text(content)
        assert synth("document", run_folder / "bundle", "--answers", answers).code == 4
    assert (run_folder / "bundle" / "manifest.json").read_bytes() == before
    facts.unlink()
    assert synth("document", run_folder / "bundle", "--answers", answers).code == 2


def test_documenting_again_survives_a_kill(
    run_folder: Path, answers: Path, synth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = (run_folder / "bundle" / "manifest.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.documents.publish", stopped)
        assert synth("document", run_folder / "bundle", "--answers", answers).code != 0
    assert (run_folder / "bundle" / "manifest.json").read_bytes() == before
    assert {path.name for path in run_folder.iterdir()} == {"bundle", "internal"}
    (run_folder / "bundle").rename(run_folder / "bundle.replaced")  # where a kill between two renames leaves it
    assert synth("document", run_folder / "bundle", "--answers", answers).code == 0
    assert {path.name for path in run_folder.iterdir()} == {"bundle", "internal"}


def test_from_a_run_to_a_release(finished: Finished, run_folder: Path, answers: Path, synth: Any) -> None:
    bundle, key = run_folder / "bundle", answers.with_name("ada.key")
    synth("key", "new", key)
    refused = synth("approve", bundle, "--by", "Ada", "--key", key)
    assert refused.code == 2 and "45 questions of its datasheet have no answer" in refused.err
    by_section = answers.with_name("sections.yaml")
    by_section.write_text("".join(f"{section.others}: Said for all.\n" for section in sections()))
    assert "uses.others: Said" in by_section.read_text()
    told = synth("document", bundle, "--answers", by_section)
    assert (
        told.code == 0
        and "questions answered by a text for their section: motivation (3), composition (9), " in told.err
    )
    refused = synth("approve", bundle, "--by", "Ada", "--key", key)
    own = (
        "composition.errors, collection.consent, uses.tasks, uses.forbidden, distribution.licence, maintenance.contact"
    )
    assert refused.code == 2 and f"6 questions of its datasheet have no answer: {own};" in refused.err
    assert synth("document", bundle, "--answers", answers).code == 0
    approved = synth("approve", bundle, "--by", "Ada", "--key", key, "--ledger", finished.clinic.ledger_url)
    assert (approved.code, approved.err) == (0, "")
    assert synth("document", bundle, "--answers", answers).code == 2  # an approval is about exact bytes
    released = synth("release", bundle, answers.with_name("release"))
    verified = synth("verify", Path(released.out.strip()), "--public-key", f"{key}.pub")
    assert verified.code == 0 and "approved by Ada" in verified.out
    statement = json.loads(base64.b64decode(json.loads((bundle / "attestation.json").read_bytes())["payload"]))
    assert statement["predicate"]["candidates"] == {"count": 2, "counted": "at the decision"}


def _rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_bytes(canonical_json(change(json.loads(path.read_bytes()))))


def _relist(bundle: Path, name: str) -> None:
    """Make the manifest fit a changed file, as an attacker would."""
    _rewrite(
        bundle / "manifest.json",
        lambda manifest: manifest | {"files": manifest["files"] | {name: sha256_file(bundle / name)}},
    )


def _lower_epsilon(bundle: Path) -> None:
    def lower(statement: Any) -> Any:
        statement["x_synth"]["epsilon"] = 0.1
        return statement

    _rewrite(bundle / "privacy.json", lower)
    _relist(bundle, "privacy.json")


def _unlist(bundle: Path) -> None:
    def without(manifest: Any) -> Any:
        del manifest["files"]["datasheet.md"]
        return manifest

    _rewrite(bundle / "manifest.json", without)
    (bundle / "datasheet.md").unlink()


def _loose_base64(bundle: Path) -> None:
    def loosen(envelope: Any) -> Any:
        content = base64.b64decode(envelope["payload"]) + b" "
        return envelope | {"payload": base64.b64encode(content).decode()}

    _rewrite(bundle / "attestation.json", loosen)


def _append(name: str, content: bytes) -> Callable[[Path], None]:
    def append(bundle: Path) -> None:
        with (bundle / name).open("ab") as stream:
            stream.write(content)

    return append


TAMPERED: dict[str, Callable[[Path], Any]] = {
    "a changed row file": _append("data/part-00000.parquet", b"\0"),
    "a changed document": _append("datasheet.md", b"trust me\n"),
    "a changed model": _append("model/generator.safetensors", b"\0"),
    "a file too many": lambda bundle: (bundle / "extra.txt").write_text("x"),
    "a hidden file too many": lambda bundle: (bundle / "data" / ".extra").write_text("x"),
    "a missing file": lambda bundle: (bundle / "quality.html").unlink(),
    "a missing file that is not listed": _unlist,
    "a link": lambda bundle: (bundle / "data" / "link").symlink_to(bundle / "schema.yaml"),
    "no manifest": lambda bundle: (bundle / "manifest.json").unlink(),
    "no attestation": lambda bundle: (bundle / "attestation.json").unlink(),
    "a manifest that is not canonical": _append("manifest.json", b"\n"),
    "an attestation that is not canonical": _append("attestation.json", b"\n"),
    "a manifest that is no JSON": lambda bundle: (bundle / "manifest.json").write_text("{"),
    "an unknown key in the manifest": lambda bundle: _rewrite(bundle / "manifest.json", lambda m: m | {"note": "x"}),
    "an unknown key in the attestation": lambda b: _rewrite(b / "attestation.json", lambda e: e | {"note": "x"}),
    "a signature from nowhere": lambda b: _rewrite(b / "attestation.json", lambda e: e | {"signatures": [{"sig": ""}]}),
    "loose base64": _loose_base64,
    "a lower epsilon, relisted": _lower_epsilon,
    "a changed document, relisted": lambda b: (_append("datasheet.md", b"x")(b), _relist(b, "datasheet.md")),
}


@pytest.mark.parametrize("damage", TAMPERED.values(), ids=TAMPERED.keys())
def test_verify_finds_tampering(bundle: Path, synth: Any, damage: Callable[[Path], Any]) -> None:
    assert synth("verify", bundle).code == 0
    damage(bundle)
    outcome = synth("verify", bundle)
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.err.startswith("synth: ") and outcome.err.count("\n") == 1


# ---- sample ----


def test_sampling_costs_nothing_and_repeats_by_seed(finished: Finished, process: Any, tmp_path: Path) -> None:
    spent = finished.clinic.ledger.read_bytes()
    outcome = process("sample", finished.bundle, "--rows", 30, "--seed", 7, "-o", "a.parquet", cwd=tmp_path)
    assert (outcome.code, outcome.out) == (0, f"{tmp_path / 'a.parquet'}\n")
    assert outcome.err == "30 rows drawn; this cost no budget\n"
    table = pq.read_table(tmp_path / "a.parquet")
    assert (table.num_rows, types(table)) == (30, TYPES)
    metadata = pq.read_schema(tmp_path / "a.parquet").metadata
    assert metadata == pq.read_schema(finished.bundle / "data" / "part-00000.parquet").metadata
    assert stat.S_IMODE((tmp_path / "a.parquet").stat().st_mode) == 0o600
    assert finished.clinic.ledger.read_bytes() == spent


def test_sampling_by_seed_and_condition(finished: Finished, synth: Any, tmp_path: Path) -> None:
    def drawn(*options: object) -> pa.Table:
        outcome = synth("sample", finished.bundle, "--rows", 40, "-o", tmp_path / "rows.parquet", *options)
        assert outcome.code == 0, outcome.err
        return pq.read_table(tmp_path / "rows.parquet")

    assert drawn("--seed", 3).equals(drawn("--seed", 3))
    assert not drawn("--seed", 3).equals(drawn("--seed", 4))
    assert not drawn().equals(drawn())
    held = drawn("--where", "sex=female", "--where", "died=true", "--where", "ward=", "--where", "age=44")
    assert [set(held[name].to_pylist()) for name in ("sex", "died", "ward", "age")] == [
        {"female"},
        {True},
        {None},
        {44},
    ]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--where", "age>=200"), "18 to 90"),
        (("--where", "age=200"), "18 to 90"),
        (("--where", "sex=unknown"), "female, male"),
        (("--where", "sexx=male"), "did you mean sex"),
        (("--where", "sex="), "never missing"),
        (("--where", "sex=male", "--where", "sex=female"), "contradicts"),
        (("--where", "note=x"), "not a learned column"),
        (("--complete", "nowhere.parquet"), "cannot be read"),
        (("--rows", "0"), "--rows"),
        (("--seed", "-1"), "--seed"),
    ],
)
def test_impossible_samples(
    finished: Finished, synth: Any, tmp_path: Path, options: tuple[str, ...], word: str
) -> None:
    rows = () if "--rows" in options else ("--rows", 5)
    outcome = synth("sample", finished.bundle, *rows, "-o", tmp_path / "rows.parquet", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1 and word in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_sampling_from_nothing_or_to_nowhere(finished: Finished, synth: Any, tmp_path: Path) -> None:
    for bundle, output in (
        (tmp_path / "none", tmp_path / "rows.parquet"),
        (finished.bundle, tmp_path),
        (finished.bundle, tmp_path / "none" / "rows.parquet"),
    ):
        outcome = synth("sample", bundle, "--rows", 5, "-o", output)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)


def test_sampling_from_a_damaged_model(bundle: Path, synth: Any, tmp_path: Path) -> None:
    os.truncate(bundle / "model" / "generator.safetensors", 100)
    outcome = synth("sample", bundle, "--rows", 5, "-o", tmp_path / "rows.parquet")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (4, "", 1)
    assert not (tmp_path / "rows.parquet").exists()


def test_evaluating_a_finished_run(finished: Finished, synth: Any, tmp_path: Path) -> None:
    """The bundle names the run and what it claims; the run folder beside it, the rows that were learned."""
    pq.write_table(finished.clinic.table.slice(0, 100), tmp_path / "test.parquet")
    outcome = synth("evaluate", finished.bundle, "--real", tmp_path / "test.parquet", "--out", tmp_path / "report")
    assert outcome.code == 0, outcome.err
    subject = json.loads((tmp_path / "report" / "evaluation.json").read_text())["subject"]
    assert subject["intact"] is True and subject["training"] == "patients.parquet"
    assert subject["run"] == finished.bundle.parent.name
    assert subject["mu"] == pytest.approx(0.26805, abs=1e-4)  # of (1, 1e-5)


def test_linear_algebra_has_one_thread_in_a_run(
    clinic: Any, quick_run: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    from synth.tables import stages

    seen: set[int] = set()
    real = stages.evaluate

    def watching(*args: Any) -> Any:
        seen.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return real(*args)

    monkeypatch.setattr(stages, "evaluate", watching)
    with threadpool_limits(2, user_api="blas"):
        quick_run(clinic.run_yaml)
    assert seen == {1}
