"""The package's public names."""

from __future__ import annotations

import datasheets


def test_public_names() -> None:
    assert set(datasheets.__all__) == {
        "DOCUMENTS",
        "Answers",
        "Datasheet",
        "FileDigest",
        "build_datasheet",
        "deployment",
        "document",
        "load_answers",
        "template",
    }
    assert all(hasattr(datasheets, name) for name in datasheets.__all__)
