"""What a steward should look at in a source of images, by position: how many, and where the first of them are."""

from __future__ import annotations

from collections import Counter, defaultdict

from synth.images.reading import Found

MOST_PLACES = 1_000
BURNED_IN = "a header that says text is drawn into the pixels (DICOM 0028,0301)"
TEXT_LIKE = "areas that look like text"

Places = dict[str, list[tuple[int, int]]]
"""By what was noticed: rows of the source and pictures within their files, both counted from 1."""


class Noticed:
    """Collects what was noticed; keeps no more than MOST_PLACES places of a kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.places: Places = defaultdict(list)

    def note(self, found: Found, *, row: int, picture: int) -> None:
        """Take down what there is about one picture."""
        for what in filter(None, (found.why, BURNED_IN if found.burned_in else "", TEXT_LIKE * found.text_like)):
            self.counts[str(what)] += 1
            if len(self.places[str(what)]) < MOST_PLACES:
                self.places[str(what)].append((row, picture))
