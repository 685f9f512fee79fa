"""`synth key`, `approve`, `reject`, `release`, `revoke`, `verify`, `compare`, as stewards and analysts type them."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.comparing import _pairs
from synth.files import canonical_json
from synth.privacy.events import GaussianEvent
from synth.privacy.ledger import Ledger
from synth.release import REQUIRED, seal

EVENT = GaussianEvent(name="all", sensitivity=1, replace_one_sensitivity=math.sqrt(2), noise_scale=4)


class Office:
    """A candidate in its run's folder, the ledger it was charged to, and a steward's key."""

    def __init__(self, folder: Path, synth: Callable[..., Any]) -> None:
        self.folder, self.synth = folder, synth
        self.url = f"sqlite:///{folder / 'ledger.db'}"
        self.ledger = Ledger.open(self.url)
        self.bundle = self.candidate("toy-1")
        self.key, self.public = folder / "ada.key", folder / "ada.key.pub"
        self.key_id = synth("key", "new", self.key).out.strip()

    def candidate(self, run_id: str, *, gaps: tuple[str, ...] = (), **said: Any) -> Path:
        self.ledger.reserve(population="people", dataset="toy", run_id=run_id, events=[EVENT], delta=1e-5)
        self.ledger.spend(run_id, EVENT)
        self.ledger.settle(run_id)
        population = {"name": "people", "epsilon": 0.5, "delta": 1e-5, "cap": None, "candidates": 1}
        stated = {
            "run": said.get("shown_id", run_id),
            "created": "2025-01-31T10:15:00Z",
            "population": population,
            "epsilon": 0.5,
            "delta": 1e-5,
            "privacy_unit": "row",
            "max_rows_per_person": 1,
            "not_covered": ["The schema itself."],
            "output_rows": {"rows": 10, "chosen_by": "config"},
            "ledger_head": self.ledger.head(),
        }
        values = {
            "privacy.json": {"x_synth": stated},
            "datasheet.json": {
                "title": "Toy",
                "gaps": gaps,
                "sections": [],
                "answered_for_section": said.get("by_section", ()),
            },
            "quality.json": {
                "valid_rows": 10,
                "one_way": [{"columns": ["age"], "distance": len(run_id) / 100, "noise": 0.2}],
                "two_way": [],
            },
            "model/config.json": {"members": 1},
        }
        bundle = self.folder / run_id / "bundle"
        for name in (*REQUIRED, "data/part-00000.parquet"):
            (bundle / name).parent.mkdir(parents=True, exist_ok=True)
            content = canonical_json(values[name]) if name in values else f"dataset: {name}\n".encode()
            (bundle / name).write_bytes(content)
        seal(bundle)
        return bundle

    def approve(self, *options: object, bundle: Path | None = None) -> Any:
        return self.synth("approve", bundle or self.bundle, "--by", "Ada", "--key", self.key, *options)


@pytest.fixture
def office(tmp_path: Path, synth: Any, monkeypatch: pytest.MonkeyPatch) -> Office:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return Office(tmp_path, synth)


def test_from_candidate_to_revoked(office: Office, synth: Any, tmp_path: Path) -> None:
    out, list_of_all = tmp_path / "public" / "toy", tmp_path / "home" / "synth" / "revocations.json"
    assert "intact, NOT approved" in synth("verify", office.bundle).out
    assert synth("release", office.bundle, out).code == 3

    done = office.approve("--ledger", office.url)
    assert (done.code, done.err) == (0, "")
    assert "toy-1: approved by Ada on 20" in done.out and office.key_id in done.out
    assert synth("release", office.bundle, out).out == f"{out}\n"

    found = synth("verify", out)
    assert (found.code, "integrity, not origin" in found.out) == (0, True)
    assert "intact, approved by Ada" in found.out and "NOT" not in found.out
    found = synth("verify", out, "--public-key", office.public, "--ledger", office.url)
    assert "Signed by a key you named. Its ledger entry was found." in found.out
    found = json.loads(synth("verify", out, "--public-key", office.public, "--json").out)
    assert (found["approved"], found["by"], found["origin_checked"]) == (True, "Ada", True)
    assert found["key_id"] == office.key_id

    done = synth("revoke", office.bundle, "--key", office.key, "--reason", "a person withdrew")
    assert done.code == 0 and done.out.splitlines() == [
        str(list_of_all),
        str(office.bundle.parent / "revocations.json"),
    ]
    for copy in (office.bundle, out):  # the steward's own list knows every copy
        gone = synth("verify", copy)
        assert (gone.code, gone.out) == (4, "") and "REVOKED on" in gone.err and "a person withdrew" in gone.err
    assert synth("release", office.bundle, tmp_path / "again").code == 3


def test_how_an_analyst_learns_of_a_revocation(office: Office, synth: Any, tmp_path: Path, monkeypatch: Any) -> None:
    office.approve()
    copy = tmp_path / "analyst" / "toy"
    synth("release", office.bundle, copy)
    synth("revoke", office.bundle, "--key", office.key)
    published = tmp_path / "home" / "synth" / "revocations.json"
    monkeypatch.setenv("SYNTH_REVOCATIONS", str(tmp_path / "analyst" / "none.json"))  # on another machine
    assert synth("verify", copy).code == 0
    assert synth("verify", copy, "--revocations", published).code == 4
    shutil.copy(published, copy.parent / "revocations.json")
    assert synth("verify", copy).code == 4
    missing = synth("verify", copy, "--revocations", "nowhere.json")
    assert missing.code == 2 and "nowhere.json" in missing.err


def test_a_rejection(office: Office, synth: Any, tmp_path: Path) -> None:
    done = synth("reject", office.bundle, "--by", "Ada", "--key", office.key, "--reason", "too blurred")
    assert done.code == 0 and "rejected by Ada" in done.out
    assert synth("verify", office.bundle).code == 4
    assert synth("release", office.bundle, tmp_path / "out").code == 3
    assert office.approve().code == 3
    assert synth("revoke", office.bundle, "--key", office.key).code == 2
    # what it cost stays charged, and its entry stays in the ledger
    assert synth("budget", "verify", "--bundle", office.bundle, "--ledger", office.url).code == 0
    assert json.loads(synth("budget", "show", "people", "--ledger", office.url, "--json").out)["epsilon"] > 0


def test_open_questions(office: Office) -> None:
    bundle = office.candidate("gaps", gaps=("motivation.funding", "uses.comments"))
    done = office.approve(bundle=bundle)
    assert (done.code, done.out) == (2, "")
    assert "1 questions of its datasheet have no answer: motivation.funding;" in done.err
    assert "synth document" in done.err and "costs no budget" in done.err


def test_answers_for_a_whole_section_count_and_are_told(office: Office) -> None:
    done = office.approve("--ledger", office.url, bundle=office.candidate("shared", by_section=("motivation.funding",)))
    assert (done.code, done.err) == (0, "questions answered by a text for their section: motivation (1)\n")


class TestCandidates:
    """The statement says how many candidates the population has had: by its ledger, where that is at hand."""

    def said(self, bundle: Path) -> Any:
        import base64

        payload = json.loads((bundle / "attestation.json").read_bytes())["payload"]
        return json.loads(base64.b64decode(payload))["predicate"]

    def test_by_the_ledger(self, office: Office) -> None:
        office.candidate("toy-2")
        office.approve("--ledger", office.url, "--public-scores-only")
        said = self.said(office.bundle)
        assert said["candidates"] == {"count": 2, "counted": "at the decision"}
        assert (said["basis"], said["not_covered"]) == ("public scores only", [])

    def test_by_the_bundle(self, office: Office, tmp_path: Path) -> None:
        done = office.approve()
        assert done.code == 0 and done.err.startswith("note: ") and "--ledger" in done.err
        said = self.said(office.bundle)
        assert said["candidates"] == {"count": 1, "counted": "at the run"}
        assert said["not_covered"] == ["The decision to release"]

    def test_by_the_environment(self, office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SYNTH_LEDGER", office.url)
        assert office.approve().err == ""
        assert self.said(office.bundle)["candidates"]["counted"] == "at the decision"

    def test_by_another_ledger(self, office: Office, tmp_path: Path) -> None:
        other = f"sqlite:///{tmp_path / 'other.db'}"
        Ledger.open(other).set_cap("people", 4.0)
        done = office.approve("--ledger", other)
        assert done.code == 4 and "does not hold the entry" in done.err


class TestKeys:
    def test_new(self, office: Office, synth: Any, shared: Any) -> None:
        assert len(office.key_id) == 64 and set(office.key_id) <= set("0123456789abcdef")
        assert shared(office.key) == []
        again = synth("key", "new", office.key)
        assert (again.code, again.out) == (2, "") and "never overwritten" in again.err

    def test_that_others_can_read(self, office: Office) -> None:
        office.key.chmod(0o644)
        done = office.approve()
        assert done.code == 2 and f"chmod 600 {office.key}" in done.err

    def test_in_the_environment(self, office: Office, synth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        pem = office.key.read_text()
        monkeypatch.setenv("SYNTH_KEY", pem)
        office.key.unlink()
        done = synth("approve", office.bundle, "--by", "Ada")
        assert done.code == 0 and office.key_id in done.out
        assert pem.splitlines()[1] not in done.out + done.err

    def test_none(self, office: Office, synth: Any) -> None:
        done = synth("approve", office.bundle, "--by", "Ada")
        assert done.code == 2 and "$SYNTH_KEY" in done.err

    def test_passwords(self, office: Office, synth: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        unset = synth("key", "new", tmp_path / "k", "--password-env", "WORD")
        assert unset.code == 2 and "WORD" in unset.err and not (tmp_path / "k").exists()
        monkeypatch.setenv("WORD", "correct horse")
        assert synth("key", "new", tmp_path / "k", "--password-env", "WORD").code == 0
        command = ("approve", office.bundle, "--by", "Ada", "--key", tmp_path / "k")
        assert "--password-env" in synth(*command).err
        monkeypatch.setenv("WORD", "battery staple")
        wrong = synth(*command, "--password-env", "WORD")
        assert wrong.code == 2 and "wrong password" in wrong.err and "staple" not in wrong.err
        monkeypatch.setenv("WORD", "correct horse")
        assert synth(*command, "--password-env", "WORD").code == 0

    def test_demanded(self, office: Office, synth: Any, tmp_path: Path) -> None:
        synth("key", "new", tmp_path / "eve.key")
        eve = tmp_path / "eve.key.pub"
        assert synth("verify", office.bundle, "--public-key", office.public).code == 4  # nobody has signed yet
        office.approve()
        for options, code in (
            (("--public-key", office.public), 0),
            (("--public-key", eve), 4),
            (("--public-key", eve, "--public-key", office.public), 0),
            (("--public-key", office.key), 2),
            (("--public-key", tmp_path / "nowhere.pub"), 2),
        ):
            assert synth("verify", office.bundle, *options).code == code, options
        assert synth("release", office.bundle, tmp_path / "out", "--public-key", eve).code == 4
        assert synth("release", office.bundle, tmp_path / "out", "--public-key", office.public).code == 0


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("approve", "nowhere", "--by", "Ada", "--key", "ada.key"), "no such folder"),
        (("approve", "toy-1/bundle", "--key", "ada.key"), "--by"),
        (("approve", "toy-1/bundle", "--by", "A\nda", "--key", "ada.key"), "--by"),
        (("approve", "toy-1/bundle", "--by", "Ada", "--key", "nowhere.key"), "nowhere.key"),
        (("revoke", "toy-1/bundle", "--key", "ada.key"), "NOT approved"),
        (("document", "toy-1/bundle", "--answers", "answers.yaml"), "the facts of its run are not beside it"),
        (("release", "nowhere", "out"), "no such folder"),
        (("compare", "toy-1/bundle", "nowhere"), "no such folder"),
        (("key", "new", "nowhere/k"), "folder does not exist"),
    ],
)
def test_mistakes(office: Office, synth: Any, command: tuple[str, ...], words: str) -> None:
    done = synth(*command)
    assert (done.code, done.out) == (2, "")
    assert words in done.err and done.err.count("\n") == 1


def test_a_name_out_of_a_bundle_cannot_write_on_the_terminal(office: Office, synth: Any) -> None:
    bundle = office.candidate("odd", shown_id="\x1b[2Jodd")
    for command in ("verify", "compare"):
        done = synth(command, bundle, *([bundle] if command == "compare" else []))
        assert done.code == 0 and "\x1b" not in done.out and "?[2Jodd" in done.out
    (bundle / "\x1b[2Jclean").write_text("")
    done = synth("verify", bundle)
    assert done.code == 4 and "?[2Jclean: is in the bundle and not in the manifest" in done.err


def test_compare(office: Office, synth: Any) -> None:
    other = office.candidate("second-run")
    told = synth("compare", office.bundle, other)
    assert (told.code, told.err) == (0, "")
    assert "run toy-1 of 2025" in told.out and "run second-run of 2025" in told.out
    assert "distance of age: 0.0500 (noise 0.2000) → 0.1000 (noise 0.2000)" in told.out
    assert "schema: no change" in told.out and "The schema itself" not in told.out
    found = json.loads(synth("compare", office.bundle, other, "--json").out)
    assert found["b"]["run"] == "second-run" and found["privacy"]["epsilon"] == {"a": 0.5, "b": 0.5}
    (other / "schema.yaml").write_text("x: 1")
    assert synth("compare", office.bundle, other).code == 4


def test_of_lists_only_what_differs_is_told() -> None:
    pairs = {"not_covered": {"a": ["same", "old"], "b": ["same", "new", "newer"]}, "bins": {"a": [1, 2], "b": [1]}}
    assert _pairs(pairs) == [
        "not_covered, in A alone: old",
        "not_covered, in B alone: new",
        "not_covered, in B alone: newer",
        "bins: [1, 2] → [1]",
    ]


def test_a_run_folder_is_told_where_its_bundle_is(office: Office, synth: Any) -> None:
    told = synth("verify", office.bundle.parent)
    assert (told.code, told.err.count("\n")) == (4, 1) and f"its bundle is {office.bundle}" in told.err


def test_it_needs_neither_torch_nor_prefect() -> None:
    script = "import sys, pipelines.comparing; sys.exit(bool({'torch', 'prefect', 'pyarrow'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True)
