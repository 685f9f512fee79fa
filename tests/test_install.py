"""The hash-checked install and the bill of materials: what they name is what is pinned and tested."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import venv
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from synth.yaml_file import read_yaml

REPOSITORY = Path(__file__).resolve().parent.parent
LOCK = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
ENTRY = re.compile(r"([A-Za-z0-9._-]+)==(\S+)(?: ; [^\\\n]+)? ((?:\\\n    --hash=sha256:[0-9a-f]{64} ?)+)")


def locked() -> dict[str, str]:
    """Package → version; every line of the lock that is no comment is part of an entry with hashes."""
    body = "".join(line for line in LOCK.splitlines(keepends=True) if not line.startswith("#")).strip()
    entries = re.split(r"\n(?! )", body)
    found = [ENTRY.fullmatch(entry) for entry in entries]
    assert all(found), [entry.split("\n")[0] for entry, match in zip(entries, found, strict=True) if not match]
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def pinned() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in pins}


def test_the_lock_has_the_versions_of_the_constraints() -> None:
    pins = pinned()
    assert {name: pins.get(name) for name in locked()} == locked()


def test_the_lock_holds_everything_that_the_project_needs_here() -> None:
    """So that nothing has to be looked for besides: `--no-deps` is enough."""
    entries, reached = locked(), set[str]()
    waiting = [Requirement("dp-synth"), Requirement("setuptools")]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        if (mark := f"{name}[{','.join(sorted(asked.extras))}]") in reached:
            continue
        reached.add(mark)
        assert name == "dp-synth" or name in entries, name
        for line in metadata.requires(name) or ():
            needed = Requirement(line)
            extras = asked.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    assert len(reached) > 100


def test_the_lock_names_no_place() -> None:
    assert not re.search(r"https?://|--index|--extra|--find|\.whl|@", LOCK)


def test_a_bill_of_materials_is_made_and_checked(tmp_path: Path) -> None:
    """The command of `make sbom`, on an environment with one package, since a whole one takes long to check."""
    recipe = re.search(r"^\t@\$\(BIN\)/cyclonedx-py (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None and "--validate" in recipe[1]
    venv.create(tmp_path / "small")
    packages = next((tmp_path / "small").rglob("site-packages"))
    (packages / "rfc8785-0.1.4.dist-info").mkdir()
    described = "Metadata-Version: 2.1\nName: rfc8785\nVersion: 0.1.4\nLicense: Apache-2.0\n"
    (packages / "rfc8785-0.1.4.dist-info" / "METADATA").write_text(described)
    told = recipe[1].replace("build/sbom.json", str(tmp_path / "sbom.json")).replace("$(OF)", str(tmp_path / "small"))
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", *told.split()]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=300)
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    project = bill["metadata"]["component"]
    assert (project["name"], project["version"]) == ("dp-synth", metadata.version("dp-synth"))
    assert [component["purl"] for component in bill["components"]] == ["pkg:pypi/rfc8785@0.1.4"]
    graph = {entry["ref"]: entry.get("dependsOn", []) for entry in bill["dependencies"]}
    assert graph[project["bom-ref"]] == [bill["components"][0]["bom-ref"]]


def test_the_containerfile_installs_as_the_lock_says_and_copies_what_is_there() -> None:
    lines = (REPOSITORY / "Containerfile").read_text().splitlines()
    steps = [step for line in lines if line.startswith("RUN ") for step in line.removeprefix("RUN ").split(" && ")]
    installs = [step for step in steps if step.startswith("pip install")]
    assert installs == re.findall(r"^#     (pip install .*)$", LOCK, re.MULTILINE)
    copied = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    assert all((REPOSITORY / name).exists() for name in copied)
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packages = {
        name.partition(".")[0].rstrip("*") for name in settings["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    assert packages <= copied
    # Of this folder an engine sees what is copied, and neither data nor keys that lie in it.
    ignored, *let_in = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert ignored == "*" and {line[1:] for line in let_in if line[0] == "!"} == copied
    assert {settings["project"]["readme"]} <= copied


def test_the_manifest_runs_that_image_as_its_user() -> None:
    manifest = read_yaml(REPOSITORY / "docs" / "worker.yaml")
    pod = manifest["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    text = (REPOSITORY / "Containerfile").read_text()
    assert f"ARG UID={pod['securityContext']['runAsUser']}\n" in text
    assert f"CMD {json.dumps(worker['args'])}\n" in text
    assert worker["image"] == f"dp-synth:{metadata.version('dp-synth')}"
    assert {mount["name"] for mount in worker["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
