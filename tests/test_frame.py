"""The frame: what a fresh clone promises in its README, Makefile, constraints and sample data."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from datasheets import load_answers
from pipelines.cli import app
from synth.config import load_run
from synth.ingest import check_header, read_batches
from synth.schema import load_schema

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLES = ("support2", "adult", "pbcseq")
TARGETS = ("demo", "test", "check", "bench", "lock", "sbom", "image", "clean", "help")
PAGES = sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md"))
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "data/README.md",
    "benchmarks/README.md",
    "benchmarks/tried.md",
    *PAGES,
]
# Spelled in pieces, so that this file does not mention what it looks for.
MACHINE_PATHS = tuple("/" + rest for rest in ("work/", "root/", "tmp/dev"))


def text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def tracked_files() -> list[Path]:
    """The files of the repository; without git, all files but what .gitignore names."""
    git = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if git.returncode == 0:
        return [path for name in git.stdout.splitlines() if (path := REPOSITORY / name).is_file()]
    skipped = {".venv", "build", "dist", "out", ".git", "__pycache__"}
    return [
        path
        for path in REPOSITORY.rglob("*")
        if path.is_file() and not any(part in skipped or part.endswith(("_cache", ".egg-info")) for part in path.parts)
    ]


def load_script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = REPOSITORY / name
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


# ---- sample data ----


def test_checksums_of_the_sample_data() -> None:
    listed = dict(re.findall(r"\| `([^`]+\.parquet)` \| `([0-9a-f]{64})` \|", text("data/README.md")))
    shipped = sorted((REPOSITORY / "data").rglob("*.parquet"))
    shipped = [path for path in shipped if "out" not in path.relative_to(REPOSITORY / "data").parts]
    assert sorted(listed) == [path.relative_to(REPOSITORY / "data").as_posix() for path in shipped]
    for path in shipped:
        name = path.relative_to(REPOSITORY / "data").as_posix()
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name], name


@pytest.mark.parametrize("sample", SAMPLES)
def test_shipped_run_loads_and_its_source_fits(sample: str) -> None:
    run = load_run(REPOSITORY / "data" / sample / "run.yaml")
    assert run.table == load_schema(REPOSITORY / "data" / sample / "schema.yaml")
    assert run.config.source.path == REPOSITORY / "data" / sample / f"{sample}.parquet"
    assert run.config.privacy.delta * pq.read_metadata(run.config.source.path).num_rows < 1
    run.table.refuse_unconfirmed()
    check_header(run.config.source.path, run.table)


@pytest.mark.parametrize("sample", SAMPLES)
def test_shipped_schema_names_every_column_and_label(sample: str) -> None:
    schema = load_schema(REPOSITORY / "data" / sample / "schema.yaml")
    batch = next(read_batches(REPOSITORY / "data" / sample / f"{sample}.parquet", schema))
    assert batch.schema.names == [column.name for column in schema.learned_columns]
    assert all(column.description for column in schema.columns)
    for column in schema.columns:
        levels = [str(level) for level in getattr(column, "categories", ())]
        assert set(map(str, column.labels)) <= set(levels), column.name


def test_shipped_answers_load() -> None:
    answers = load_answers(REPOSITORY / "data" / "support2" / "answers.yaml")
    assert answers.text("motivation.funding")
    assert answers.text("distribution.licence") is None, "whoever releases a bundle chooses its licence"


# ---- packages ----


def test_every_package_is_pinned_within_its_range() -> None:
    pins = {}
    for line in text("constraints.txt").splitlines():
        if line and not line.startswith("#"):
            name, exact, version = line.partition("==")
            assert exact and re.fullmatch(r"[0-9][0-9a-z.]*", version), line
            pins[canonicalize_name(name)] = version
    project = tomllib.loads(text("pyproject.toml"))["project"]
    for line in project["dependencies"] + project["optional-dependencies"]["dev"]:
        asked = Requirement(line)
        assert canonicalize_name(asked.name) in pins, f"{asked.name} is not pinned"
        assert asked.specifier.contains(pins[canonicalize_name(asked.name)]), line


def test_constraints_name_no_place() -> None:
    assert not re.search(r"https?://|--|@|\.whl", text("constraints.txt"))


# ---- commands ----


def test_makefile_has_its_targets() -> None:
    found = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    assert found >= set(TARGETS)


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in text("README.md")
    assert "make check\nmake test\n" in text(".ci/run")
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_the_documents_exist(document: str) -> None:
    content = text(document)
    for target in re.findall(r"\bmake ([a-z]+)\b", content):
        if f"`make {target}" in content or re.search(rf"^    make {target}\b", content, re.MULTILINE):
            assert target in TARGETS, target
    groups = {"budget", "schema"}
    runner = CliRunner()
    for words in set(re.findall(r"(?:`|^    )synth ([a-z]+(?: [a-z]+)?)\b", content, re.MULTILINE)):
        command = words.split()
        command = command if command[0] in groups else command[:1]
        done = runner.invoke(app, [*command, "--help"])
        assert done.exit_code == 0, f"{document}: synth {words}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_of_the_documents_lead_somewhere(document: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text(document)):
        if not link.startswith("https://"):
            name, _, anchor = link.partition("#")
            path = (REPOSITORY / document).parent / name if name else REPOSITORY / document
            assert path.exists(), f"{document}: {link}"
            assert not anchor or anchor in anchors(path), f"{document}: {link}"


def anchors(path: Path) -> set[str]:
    """What a link may name in a page of Markdown: its headings, in small letters, with hyphens and without signs."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reached_from_the_readme() -> None:
    for page in PAGES:
        assert f"]({page}" in text("README.md"), page


def test_schema_in_the_readme_is_valid(tmp_path: Path) -> None:
    block = re.search(r"```yaml\n(.*?)```", text("README.md"), re.DOTALL)
    assert block is not None
    (tmp_path / "schema.yaml").write_text(block.group(1), encoding="utf-8")
    assert load_schema(tmp_path / "schema.yaml").ledger_population == "ward-patients"


def test_every_module_is_on_the_map() -> None:
    shown = set(re.findall(r"`([a-z_/]+\.py)`", text("CONTRIBUTING.md")))
    for room in ("synth", "datasheets", "pipelines", "benchmarks"):
        for path in (REPOSITORY / room).rglob("*.py"):
            if path.name != "__init__.py":
                assert {path.name, f"{path.parent.name}/{path.name}"} & shown, path.relative_to(REPOSITORY)


def test_no_file_mentions_a_machine_path() -> None:
    for path in tracked_files():
        content = path.read_bytes()
        for machine_path in MACHINE_PATHS:
            assert machine_path.encode() not in content, f"{path.relative_to(REPOSITORY)} mentions {machine_path}"


# ---- demo and benchmark ----


def test_demo_reads_three_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = load_script("data/demo.py", monkeypatch)
    privacy = {"x_synth": {"epsilon": 1.0, "delta": 1e-5, "mu": 0.26805}}
    quality: dict[str, Any] = {
        "rows": 200,
        "valid_rows": 100,
        "mean_one_way_distance": 0.02,
        "mean_one_way_noise": 0.04,
        "mean_two_way_distance": 0.3,
        "mean_two_way_noise": 0.2,
    }
    first, second, third = demo.three_numbers(privacy, quality)
    assert first.startswith("55.3 of 100")  # Φ(0.26805 / 2)
    assert second.startswith("50.0 of 100")
    assert third.startswith("1.50 times")
    no_pairs = quality | {"mean_two_way_distance": None, "mean_two_way_noise": None}
    assert demo.three_numbers(privacy, no_pairs)[2].startswith("0.50 times")
    assert json.dumps(quality)  # what the demo reads is plain JSON


def test_scores_of_a_table_against_itself_and_against_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    score = load_script("benchmarks/score.py", monkeypatch)
    rng = np.random.default_rng(0)
    number = rng.normal(size=600).round(2)
    table = pd.DataFrame(
        {
            "number": np.where(rng.random(600) < 0.1, np.nan, number),
            "level": rng.choice(["a", "b", "c"], 600),
            "answer": number + rng.normal(size=600) > 0,
        }
    )
    columns = [score.Column("number", True), score.Column("level", False), score.Column("answer", False)]
    train, test = table.iloc[:400], table.iloc[400:]
    itself = score.score(train, test, train, columns=columns, target="answer")
    assert itself["tvd1"] == itself["tvd2"] == itself["tvd3"] == 0
    assert itself["auc_gbm"] > 0.7 and itself["auc_lr"] > 0.7
    constant = train.assign(number=9.0, level="d")
    apart = score.score(train, test, constant, columns=columns, target="answer", target_drop=("level",))
    assert apart["tvd1"] > 0.6  # two of three columns share almost nothing; the answer is as it was
    assert apart["c2st"] > 0.95 and apart["c2st_raw"] > 0.95
    with pytest.raises(ValueError, match="the synthetic table lacks level"):
        score.score(train, test, train[["number", "answer"]], columns=columns, target="answer")


def test_levels_have_one_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    score = load_script("benchmarks/score.py", monkeypatch)
    assert {score.spelled(cell) for cell in (1, 1.0, "1", True, np.bool_(True), np.float64(1))} == {"1"}
    dates = pd.Series(pd.to_datetime(["1970-01-02", None]))
    assert score.numbers(dates)[0] == 86_400_000_000
    assert np.isnan(score.numbers(dates)[1])
