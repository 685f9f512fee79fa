"""Private output never goes into a bundle or the draft of one, by whatever way the place is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from synth.errors import UserError
from synth.privacy.outputs import refuse_in_bundle
from synth.release import MANIFEST
from synth.run_folder import RunFolder


@pytest.fixture(params=["bundle", "draft", "named"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A finished bundle, a draft that a run is writing, or a folder that is only named as one."""
    run = RunFolder(tmp_path / "run")
    folder = {"bundle": run.bundle, "draft": run.draft, "named": tmp_path / "named"}[request.param]
    (folder / "data").mkdir(parents=True)
    if request.param == "bundle":
        (folder / MANIFEST).write_text("{}")
    return folder


def refused(output: Path, bundle: Path) -> bool:
    named = bundle if bundle.name == "named" else None
    try:
        refuse_in_bundle(output, named="--out", bundle=named)
    except UserError as error:
        return str(error).startswith("--out: lies in a bundle")
    return False


@pytest.mark.parametrize("inside", [".", "rows.parquet", "data", "data/../new", "new/deep/rows.parquet"])
def test_inside(bundle: Path, inside: str) -> None:
    assert refused(bundle / inside, bundle)


def test_by_a_link(bundle: Path, tmp_path: Path) -> None:
    link, here = tmp_path / "link", tmp_path / "here.parquet"
    link.symlink_to(bundle / "data")
    assert refused(link, bundle)
    assert refused(link / "rows.parquet", bundle)
    assert refused(link / ".." / "rows.parquet", bundle)  # the folder above the link's target, not above the link
    here.write_bytes(b"")
    (bundle / "data" / "rows.parquet").symlink_to(here)  # a rename would replace the link
    assert refused(bundle / "data" / "rows.parquet", bundle)


def test_beside(bundle: Path, tmp_path: Path) -> None:
    (bundle.parent / "internal").mkdir()
    (bundle / "out").symlink_to(tmp_path / "elsewhere")
    for output in (bundle.parent / "internal", bundle.parent / "rows.parquet", bundle / ".." / "new", tmp_path / "x"):
        assert not refused(output, bundle)


def test_relative(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle)
    assert refused(Path("rows.parquet"), bundle)
    assert not refused(Path("../rows.parquet"), bundle)
