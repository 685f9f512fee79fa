"""Variables from Secret blocks, where no server is asked; test_deploy takes one from a real server."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.secret_blocks import fill_from_blocks


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch, home: Path) -> dict[str, str]:
    """The blocks of a server, as it would give them."""
    from prefect.exceptions import ObjectNotFound

    held: dict[str, str] = {}

    def read(name: str, kind: str) -> Any:
        assert kind == "secret"
        if name not in held:
            raise ObjectNotFound(http_exc=Exception())
        return SimpleNamespace(data={"value": held[name]})

    @contextmanager
    def server() -> Any:
        yield SimpleNamespace(read_block_document_by_name=read)

    monkeypatch.setattr("pipelines.deployment.server", server)
    return held


def filled(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch, *, url: str | None) -> dict[str, str | None]:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    (folder / "run.yaml").write_text(text)
    for name, value in {"WARD_DB": "", "WARD_SET": "mine", "WARD_ELSE": ""}.items():
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv(name)
    with temporary_settings({PREFECT_API_URL: url}):
        fill_from_blocks(folder / "run.yaml")
    return {name: os.environ.get(name) for name in ("WARD_DB", "WARD_SET", "WARD_ELSE")}


SERVER = "http://127.0.0.1:1/api"
RUN = "source: {url: '${WARD_DB}', query: '${WARD_SET} ${WARD_ELSE}'}"


def test_what_is_missing_is_filled_and_what_is_set_stays(
    blocks: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks |= {"ward-db": "postgresql://h/d", "ward-set": "theirs"}
    found = filled(tmp_path, RUN, monkeypatch, url=SERVER)
    assert found == {"WARD_DB": "postgresql://h/d", "WARD_SET": "mine", "WARD_ELSE": None}


def test_without_a_server_nothing_is_asked(
    blocks: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks["ward-db"] = "postgresql://h/d"
    assert filled(tmp_path, RUN, monkeypatch, url=None)["WARD_DB"] is None


def test_a_broken_file_is_left_to_who_loads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert filled(tmp_path, "source: [", monkeypatch, url=SERVER)["WARD_DB"] is None
