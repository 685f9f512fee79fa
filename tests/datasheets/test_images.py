"""What a datasheet says of images alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from datasheets.automatic.images import preprocessing
from datasheets.reading import Reading
from synth.facts import PublicFacts
from synth.image_schema import parse_image_schema

SaidOf = Callable[..., str]


@pytest.fixture
def said(facts: PublicFacts) -> SaidOf:
    """The answer for a schema with the given sections."""

    def answer(**sections: Any) -> str:
        raw = {
            "dataset": "scans",
            "image": {"height": 8, "width": 8} | sections,
            "target": {"classes": {0: "a"}},
            "privacy_unit": "patient",
        }
        columns = parse_image_schema(raw, file="schema.yaml").described_columns
        data = facts.data.model_copy(update={"columns": columns})
        return preprocessing(Reading(facts.model_copy(update={"data": data})))

    return answer


def test_how_other_files_were_read_is_told_as_declared(said: SaidOf) -> None:
    assert "DICOM" not in said() and "values outside [0, 255]" in said()
    told = said(
        dicom={"window": [40, 400], "frames": "all"},
        nifti={"value_range": [-100, 900], "axis": 1, "slices": {"every": 8}},
        tiff={"pages": {"index": 2}},
    )
    for words in (
        "Of a DICOM file, each frame was used, and the window with centre 40 and width 400, in units of the modality,",
        "Of a NIfTI volume, one slice of every 8, from the first on, from back to front was used,",
        "and the values -100 and 900 became black and white.",
        "Of a TIFF file, page 2 (counted from 0) was used.",
    ):
        assert words in told
    assert "each file's own header" in said(dicom={})
    assert "stored bits" in said(dicom={"window": "stored", "frames": "middle"})
