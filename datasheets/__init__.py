"""Documents of a bundle, written from public facts and the steward's answers.

Pure: no clock, no randomness, no files beyond the package's own templates: same input, same bytes.
"""

from __future__ import annotations

from datasheets.answers import Answers, load_answers, template
from datasheets.croissant import FileDigest
from datasheets.datasheet import Datasheet, build_datasheet
from datasheets.documents import DOCUMENTS, document
from datasheets.registry import deployment

__all__ = [
    "DOCUMENTS",
    "Answers",
    "Datasheet",
    "FileDigest",
    "build_datasheet",
    "deployment",
    "document",
    "load_answers",
    "template",
]
