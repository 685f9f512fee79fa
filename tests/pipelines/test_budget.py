"""`synth budget` as a user types it: text, JSON, exit codes, and which ledger is asked."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from pipelines.budget import budget
from synth.errors import SynthError
from synth.privacy.accounting import mu_of
from synth.privacy.events import GaussianEvent
from synth.privacy.ledger import GENESIS, Ledger


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Budget = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Budget:
    """Run `synth budget …` in an empty folder, with an empty user data folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNTH_LEDGER", raising=False)
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: tmp_path / "home" / name)

    def call(*arguments: str) -> Outcome:
        result = CliRunner().invoke(budget, arguments)
        if isinstance(result.exception, SynthError):  # what the main command line does with it
            return Outcome(result.exception.exit_code, result.stdout, f"{result.stderr}{result.exception}\n")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call


def event(epsilon: float, delta: float = 1e-5) -> GaussianEvent:
    return GaussianEvent(
        name="one-way histograms",
        sensitivity=1,
        replace_one_sensitivity=1.5,
        noise_scale=1 / mu_of(epsilon, delta),
    )


@pytest.fixture
def used(tmp_path: Path) -> str:
    """A settled, an open and a void run on `patients` under a cap, and one run on `[b]staff`."""
    url = f"sqlite:///{tmp_path}/used.db"
    ledger = Ledger.open(url)
    ledger.set_cap("patients", 3)
    for run_id in ("first", "second", "third"):
        ledger.reserve(population="patients", dataset="visits", run_id=run_id, events=[event(1)], delta=1e-5)
    ledger.spend("first", event(1))
    ledger.settle("first")
    ledger.void("third")
    ledger.reserve(population="[b]staff", dataset="badges", run_id="fourth", events=[event(2)], delta=1e-5)
    return url


def test_show_of_a_new_population(run: Budget, tmp_path: Path) -> None:
    assert run("show", "patients") == Outcome(0, "patients: new population, no cap\n", "")
    shown = run("show", "patients", "--json")
    assert json.loads(shown.out) == {"population": "patients", "known": False, "cap": None}
    assert list(tmp_path.iterdir()) == []


def test_show_one(run: Budget, used: str) -> None:
    code, out, err = run("show", "patients", "--ledger", used)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "patients"
    for part in (
        "ε = 1.46517 at δ = 1e-05",
        "ε = 3 at δ = 1e-05",
        "charged runs  2",
        "open: second",
        "void runs     third",
    ):
        assert part in out


def test_show_one_as_json(run: Budget, used: str) -> None:
    facts = json.loads(run("show", "patients", "--ledger", used, "--json").out)
    assert facts["known"] is True
    assert facts["epsilon"] == pytest.approx(1.465, abs=5e-4)
    assert (facts["delta"], facts["cap"]) == (1e-5, 3)
    assert facts["mu"] ** 2 + facts["mu_squared_left"] == pytest.approx(mu_of(3, 1e-5) ** 2)
    assert 2 < facts["epsilon_left"] < 3
    assert (facts["charged_runs"], facts["void_runs"], facts["open_runs"]) == (
        ["first", "second"],
        ["third"],
        ["second"],
    )


def test_show_all(run: Budget, used: str) -> None:
    out = run("show", "--ledger", used).out
    assert len(out.splitlines()) == 3
    assert "[b]staff" in out  # a name is never read as markup
    assert "none" in out
    populations = json.loads(run("show", "--ledger", used, "--json").out)["populations"]
    assert [facts["population"] for facts in populations] == ["[b]staff", "patients"]
    assert populations[0]["cap"] is None


def test_a_cap_on_a_name_that_the_ledger_does_not_know(run: Budget) -> None:
    first, second = run("cap", "pateints", "4"), run("cap", "pateints", "3")
    assert "'pateints' is new in ledger " in first.err and first.err.count("\n") == 1
    assert (first.code, second.code, second.err) == (0, 0, "")


def test_nothing_yet(run: Budget, tmp_path: Path) -> None:
    assert "no population yet" in run("show").out
    assert run("show", "--json").out == '{\n  "populations": []\n}\n'
    assert run("history").out == "no entries\n"
    assert "nothing to verify" in run("verify").out
    assert json.loads(run("verify", "--json").out) == {"intact": True, "entries": 0, "head": GENESIS}
    assert len(run("export").out.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_history(run: Budget, used: str) -> None:
    lines = run("history", "--ledger", used).out.splitlines()
    assert len(lines) == 9
    assert "1 events, ε = 1 at δ = 1e-05" in lines[2]
    assert "one-way histograms" in lines[5]
    assert len(run("history", "[b]staff", "--ledger", used).out.splitlines()) == 2
    entries = json.loads(run("history", "patients", "--ledger", used, "--json").out)["entries"]
    assert [entry["kind"] for entry in entries] == [
        "cap",
        "reserve",
        "reserve",
        "reserve",
        "spend",
        "settle",
        "void",
    ]
    assert entries[0]["payload"] == {"epsilon": 3, "delta": 1e-5}


def test_export(run: Budget, used: str) -> None:
    rows = list(csv.DictReader(io.StringIO(run("export", "--ledger", used).out)))
    exported = json.loads(run("export", "--ledger", used, "--json").out)["entries"]
    assert [row["hash"] for row in rows] == [row["hash"] for row in exported]
    assert [row["payload"] for row in rows] == [row["payload"] for row in exported]
    assert exported[-1]["hash"] == Ledger.open(used).head()
    assert len(json.loads(run("export", "[b]staff", "--ledger", used, "--json").out)["entries"]) == 1


def test_verify(run: Budget, used: str) -> None:
    head = Ledger.open(used).head()
    assert run("verify", "--ledger", used) == Outcome(0, f"intact: 8 entries, head {head}\n", "")
    assert "8 entries (7 for patients)" in run("verify", "patients", "--ledger", used).out
    assert json.loads(run("verify", "patients", "--ledger", used, "--json").out)["population_entries"] == 7


def test_a_tampered_ledger_exits_4_and_can_still_be_read(run: Budget, used: str) -> None:
    with closing(sqlite3.connect(used.removeprefix("sqlite:///"))) as raw, raw:
        raw.execute("DROP TRIGGER entries_are_never_updated")
        raw.execute("UPDATE entries SET payload = 'nothing' WHERE seq = 2")
    for command in ("verify", "show"):
        code, out, err = run(command, "--ledger", used)
        assert (code, out) == (4, "")
        assert err == "ledger entry 2 was changed after it was written\n"
    assert "unreadable" in run("history", "--ledger", used).out
    assert json.loads(run("history", "--ledger", used, "--json").out)["entries"][1]["payload"] == "nothing"


def test_cap(run: Budget, tmp_path: Path) -> None:
    code, out, _ = run("cap", "patients", "4.1", "--ledger", "sqlite:///made/ledger.db")
    assert code == 0
    assert "ε = 4.1 at δ = 1e-05; one more run may have ε up to 4.1" in out
    facts = json.loads(
        run("cap", "patients", "2", "--delta", "1e-6", "--ledger", "sqlite:///made/ledger.db", "--json").out
    )
    assert (facts["cap"], facts["delta"], facts["epsilon_left"]) == (2, 1e-6, 2)
    assert (tmp_path / "made" / "ledger.db").is_file()


def test_overlap(run: Budget, used: str) -> None:
    code, out, _ = run("overlap", "patients", "[b]staff", "--ledger", used)
    assert code == 0
    assert out.count("their runs count here too") == 2
    assert "set on patients" in out  # whose cap now binds [b]staff as well
    facts = json.loads(run("show", "[b]staff", "--ledger", used, "--json").out)
    assert (facts["overlaps"], facts["capped_population"], facts["cap"]) == (["patients"], "patients", 3)
    assert facts["charged_runs"] == ["first", "second", "fourth"]
    assert "overlaps [b]staff" in run("history", "--ledger", used).out
    code, _, err = run("overlap", "[b]staff", "patients", "--ledger", used)
    assert (code, "declared already" in err) == (2, True)


def test_a_line_warns_when_little_is_left(run: Budget, used: str) -> None:
    assert run("cap", "patients", "1.6", "--ledger", used).err.count("\n") == 1
    for arguments in (("show",), ("show", "patients"), ("show", "patients", "--json")):
        code, out, err = run(*arguments, "--ledger", used)
        assert code == 0 and out
        assert err == (
            "warning: population 'patients': what is left under its cap does not suffice for another run "
            "like the latest\n"
        )
    assert json.loads(run("show", "patients", "--ledger", used, "--json").out)["runs_left"] == 0
    run("cap", "patients", "3", "--ledger", used)
    assert run("show", "--ledger", used).err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("cap", "patients", "0"),
        ("cap", "patients", "nan"),
        ("cap", "patients", "inf"),
        ("cap", "patients", "1", "--delta", "1"),
        ("cap", "patients", "much"),
        ("cap", "patients"),
        ("cap", " ", "1"),
        ("show", "--ledger", "ledger.db"),
        ("show", "--ledger", ""),
        ("show", "--ledger", "postgresql://ada:hunter2@127.0.0.1:1/db"),
        ("show", "--ledger", "mysql://ada:hunter2@127.0.0.1:1/db"),
        ("overlap", "patients", "patients"),
        ("overlap", "patients"),
        ("backup", "kept.json"),  # of a ledger without entries
        ("restore", "nowhere.json"),
        ("verify", "--bundle", "nowhere"),
        ("spend",),
    ],
)
def test_a_users_mistake_exits_2(run: Budget, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err
    assert "hunter2" not in err


class TestWhichLedger:
    def test_the_users_own_at_last(self, run: Budget, tmp_path: Path) -> None:
        run("cap", "patients", "1")
        assert (tmp_path / "home" / "synth" / "ledger.db").is_file()

    def test_run_yaml_then_the_variable_then_the_option(
        self, run: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "run.yaml").write_text("ledger: {url: 'sqlite:///${NAME}.db'}\n")
        monkeypatch.setenv("NAME", "yaml")
        run("cap", "patients", "1")
        monkeypatch.setenv("SYNTH_LEDGER", "sqlite:///variable.db")
        run("cap", "patients", "2")
        run("cap", "patients", "3", "--ledger", "sqlite:///option.db")
        caps = {}
        for name in ("yaml", "variable", "option"):
            account = Ledger.open(f"sqlite:///{name}.db", create=False).population("patients")
            assert account is not None and account.cap is not None
            caps[name] = account.cap.epsilon
        assert caps == {"yaml": 1, "variable": 2, "option": 3}

    @pytest.mark.parametrize("text", ["", "source: {path: x}\n", "ledger:\n", "ledger: {}\n", "ledger: {url: }\n"])
    def test_a_run_yaml_without_a_ledger(self, run: Budget, tmp_path: Path, text: str) -> None:
        (tmp_path / "run.yaml").write_text(text)
        outcome = run("show", "patients")
        assert (outcome.code, outcome.out) == (0, "patients: new population, no cap\n")
        assert outcome.err == "" or not text  # an empty file is broken, and said to be

    @pytest.mark.parametrize(
        "text",
        [
            "ledger: {url: [\n",
            "- a list\n",
            "ledger: sqlite:///ada:hunter2.db\n",
            "ledger: {url: 3}\n",
            "ledger: {url: 'sqlite:///${NOT_SET_ANYWHERE}'}\n",
            "password: hunter2: hunter2\n",
        ],
    )
    def test_a_broken_run_yaml_is_ignored_with_one_line(self, run: Budget, tmp_path: Path, text: str) -> None:
        (tmp_path / "run.yaml").write_text(text)
        outcome = run("show", "patients")
        assert (outcome.code, outcome.out) == (0, "patients: new population, no cap\n")
        assert outcome.err.startswith("warning: run.yaml: its ledger.url is ignored")
        assert outcome.err.count("\n") == 1
        assert "hunter2" not in outcome.err

    def test_an_undecodable_run_yaml_is_ignored(self, run: Budget, tmp_path: Path) -> None:
        (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00")
        assert run("show", "patients").code == 0

    def test_a_database_that_cannot_be_reached_is_not_replaced(self, run: Budget, tmp_path: Path) -> None:
        (tmp_path / "run.yaml").write_text("ledger: {url: 'postgresql://ada:hunter2@127.0.0.1:1/db'}\n")
        outcome = run("show")
        assert outcome.code == 2
        assert "hunter2" not in outcome.err


@pytest.mark.parametrize("command", ["show", "history", "verify", "export", "cap", "overlap", "backup", "restore"])
def test_help_teaches(run: Budget, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "--ledger" in out
    assert len(out.splitlines()) > 12


def test_it_needs_neither_torch_nor_prefect() -> None:
    script = "import sys, pipelines.budget; sys.exit(bool({'torch', 'prefect'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
