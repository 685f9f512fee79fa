"""Every page that a steward or an analyst opens, in a real browser, on a screen and on a phone, by axe-core's rules."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pyarrow.parquet as pq
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from datasheets.render import quality_html
from synth.facts import (
    AxisFacts,
    ContrastFacts,
    GroupFacts,
    InsightFacts,
    MapFacts,
    PairFacts,
    PictureSheet,
    PublicFacts,
    ShiftFacts,
)
from synth.files import write_whole
from synth.images.png import write_png
from synth.privacy.audit.report import audit_page

WIDTHS = {"desk": (1280, 900), "phone": (320, 844)}
PAGES = (
    "datasheet.html",
    "quality.html",
    "insight.html",
    "pictures.html",
    "report.html",
    "evaluation.html",
    "audit.html",
)
SHEETS = ("pictures/class-0.png", "pictures/within-0.png", "pictures/between-0-1.png")
CASES = [(page, width) for page in PAGES for width in WIDTHS]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SEEN = """() => ({
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    images: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src.slice(0, 80)),
    ids: [...document.querySelectorAll('[id]')].map(e => e.id),
    links: [...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href')),
    title: document.title,
    unseen: [...document.querySelectorAll('h1, h2, dd, td:not(.wide)')].filter(e => !e.getClientRects().length).length,
})"""
LONG_WORDS = """() => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.trim().replace(/\\s+/g, '_');
    return document.documentElement.scrollWidth - document.documentElement.clientWidth;
}"""
"""Makes one word of every text, and says by how much the page is too wide then."""
ANSWERS = """\
collection.others: Recorded by the ward in the course of care.
motivation.purpose: To teach with.
"""
"""So that the datasheet has all it can show: gaps, answers of their own, and one text for a section."""
AUDIT: dict[str, Any] = {
    "reading": "An audit can refute ε, never prove it.",
    "refuted": False,
    "declared": None,
    "charged": False,
    "rows_of": "bundle clinic-1",
    "one_run": {
        "guesses": [1000, 500],
        "correct": [520, 270],
        "claimed_epsilon": 1.0,
        "delta": 1e-5,
        "covers": "the noised tables of counts",
        "canaries": 1000,
        "rows": 400,
        "epsilon_lower_bound": 0.01,
        "confidence": 0.999,
        "noise_epsilon_lower_bound": 0.93,
        "noise_confidence": 0.999999999,
    },
    "shadow": {
        "repetitions": 100,
        "reach": 2.3,
        "confidence": 0.95,
        "attacks": [
            {
                "sees": "all noised tables of counts, and the bins",
                "true_positives": 20,
                "members": 25,
                "false_positives": 10,
                "non_members": 25,
                "epsilon_lower_bound": 0.2,
                "gaussian_epsilon_lower_bound": 0.5,
            }
        ],
    },
}


def insight() -> InsightFacts:
    """All colours of the matrix and of the map, and shifts of every kind: more than one small run shows."""
    names = [f"a_rather_long_name_{i}" for i in range(12)]
    pairs = [
        PairFacts(
            columns=(one, other),
            cells=64,
            noise=12.5,
            share_error=0.001 + 0.001 * (i % 9),
            dependence=(i % 7) / 10,
            dependence_z=float(i % 11) - 1,
            residual=0.8 + (i % 13) / 4,
            residual_z=float(i % 13) - 2,
        )
        for i, (one, other) in enumerate(itertools.combinations(names, 2))
        if i % 5
    ]
    shifts = tuple(
        ShiftFacts(
            column=name,
            groups=(0, i % 4 + 1),
            distance=0.9 / (i + 1),
            error=None if i % 4 == 3 else 0.03,
            z=None if i % 4 == 3 else 9.0 - i,
            what="share" if i % 2 else "mean",
            level="missing" if i % 2 else "",
            values=(0.2, 0.7) if i % 2 else ("2020-01-01", "2021-02-03"),
            value_error=0.02,
        )
        for i, name in enumerate(names)
    )
    classes = ("north", "south", "east", "west", "any other")
    axes = [AxisFacts(part=0.3, low=tuple(names[i : i + 3]), high=tuple(names[i + 3 : i + 6])) for i in (0, 6)]
    return InsightFacts(
        pairs=tuple(pairs),
        unmeasured=14,
        contrast=ContrastFacts(by="ward", groups=classes, shares=(0.2,) * 5, shifts=shifts),
        map=MapFacts(
            by="ward",
            classes=classes,
            axes=(axes[0], axes[1]),
            points=tuple((math.cos(i), math.sin(2.5 * i), i % 5, i % 6) for i in range(200)),
            groups=tuple(GroupFacts(share=1 / 6, members=(0.2,) * 5, apart=shifts[g : g + 3]) for g in range(6)),
        ),
    )


@dataclass(frozen=True)
class Seen:
    """What the browser has met on a page."""

    folder: Path
    page: dict[str, Any]
    violations: list[str]
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def pages(quick_bundle: Path, clinic_at: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The pages of one run, by name."""
    from pipelines.documents import document_again
    from pipelines.evaluating import evaluate_bundle
    from synth.evaluate.internal import models

    folder = tmp_path_factory.mktemp("pages")
    real = clinic_at(folder / "others").table
    pq.write_table(real, folder / "real.parquet")
    forest = models.RandomForestClassifier
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "RandomForestClassifier", lambda _, **options: forest(5, **options))
        evaluation = evaluate_bundle(
            quick_bundle,
            real=folder / "real.parquet",
            training=quick_bundle.parents[2] / "patients.parquet",
            target=None,
            subgroups=["ward"],
            out=folder / "internal",
        )
    (folder / "audit.html").write_text(audit_page(AUDIT))
    run = Path(shutil.copytree(quick_bundle.parent, folder / quick_bundle.parent.name))
    (folder / "answers.yaml").write_text(ANSWERS)
    document_again(run / "bundle", folder / "answers.yaml")
    facts = PublicFacts.model_validate_json((run / "internal" / "facts.json").read_bytes())
    quality = facts.quality.model_copy(update={"insight": insight()})
    (folder / "insight.html").write_text(quality_html(facts.model_copy(update={"quality": quality})))
    (folder / "pictures.html").write_text(scores_with_pictures(facts, folder))
    yield {
        "datasheet.html": run / "bundle" / "datasheet.html",
        "quality.html": quick_bundle / "quality.html",
        "insight.html": folder / "insight.html",
        "pictures.html": folder / "pictures.html",
        "report.html": quick_bundle.parent / "internal" / "report.html",
        "evaluation.html": evaluation,
        "audit.html": folder / "audit.html",
    }


def scores_with_pictures(facts: PublicFacts, folder: Path) -> str:
    """The public scores of a run, as if it had been on pictures; their sheets are written beside."""
    sheets = []
    for file, shows, classes in zip(
        SHEETS, ("draws", "within", "between"), (("left",), ("left",), ("left", "right")), strict=True
    ):
        write_whole(folder / file, write_png(np.full((71, 71, 1), 90, dtype=np.uint16), 8))
        sheets.append(PictureSheet(file=file, shows=shows, classes=classes, width=71, height=71))
    return quality_html(facts.model_copy(update={"data": facts.data.model_copy(update={"sheets": tuple(sheets)})}))


@pytest.fixture(scope="module")
def seen(pages: dict[str, Path], chromium: Path) -> dict[tuple[str, str], Seen]:
    """Every page at every width. The browser is closed before a test looks: its event loop must not outlive this."""
    found = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(chromium), args=FLAGS)
        for name, path in pages.items():
            page = browser.new_page(reduced_motion="reduce")
            messages: list[str] = []
            requests: list[str] = []
            page.on("console", lambda message, to=messages: to.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error, to=messages: to.append(str(error)))
            page.on("request", lambda request, to=requests: to.append(request.url))
            for width, (across, down) in WIDTHS.items():
                page.set_viewport_size({"width": across, "height": down})
                if width == "desk":
                    page.goto(path.as_uri())
                # Colours, the slow rule, do not depend on the width.
                rules = {"color-contrast": {"enabled": width == "desk"}}
                axe = Axe().run(page, options={"resultTypes": ["violations"], "rules": rules}).response
                violations = [
                    f"{rule['impact']} {rule['id']}: {node['html'][:160]}"
                    for rule in axe["violations"]
                    for node in rule["nodes"]
                ]
                found[name, width] = Seen(path.parent, page.evaluate(SEEN), violations, messages, requests)
            found[name, "phone"].page["wide_with_long_words"] = page.evaluate(LONG_WORDS)
            page.close()
        browser.close()
    return found


def test_the_datasheet_shows_all_it_can(pages: dict[str, Path]) -> None:
    text = pages["datasheet.html"].read_text()
    assert all(title in text for title in ("Answered for the section", "Recorded by the ward", "To teach with"))
    assert '<span class="badge">' in text  # of a section with gaps


def test_pictures_are_on_the_pages(pages: dict[str, Path]) -> None:
    text = pages["insight.html"].read_text()
    assert all(f'<section id="{part}"' in text for part in ("contrast", "map", "pairs"))
    assert all(
        f'class="{colour}"' in text for colour in ("none", "weak", "clear", "strong", "fits", "near", "off", "far")
    )
    real = pages["quality.html"].read_text()
    assert all(f'<section id="{part}"' in real for part in ("contrast", "pairs"))


@pytest.mark.parametrize(("name", "width"), CASES)
class TestPage:
    def test_it_asks_for_nothing_and_complains_of_nothing(self, seen: Any, name: str, width: str) -> None:
        found = seen[name, width]
        asked = [urlparse(url).path for url in found.requests if not url.startswith("data:")]
        own = SHEETS if name == "pictures.html" else ()
        assert len(asked) == 1 + len(own)
        assert all(path.endswith(f"/{file}") for path, file in zip(asked, (name, *own), strict=True))
        assert found.messages == []
        assert found.page["title"]

    def test_it_fits(self, seen: Any, name: str, width: str) -> None:
        page = seen[name, width].page
        assert page["wide"] <= 0
        assert page["images"] == []
        assert page["unseen"] == 0

    def test_links_lead_somewhere(self, seen: Any, name: str, width: str) -> None:
        found = seen[name, width]
        ids = found.page["ids"]
        assert len(ids) == len(set(ids))
        for link in found.page["links"]:
            if link.startswith("#"):
                assert unquote(link[1:]) in ids
            elif not urlparse(link).scheme:
                assert (found.folder / unquote(urlparse(link).path)).is_file(), link

    def test_everybody_can_use_it(self, seen: Any, name: str, width: str) -> None:
        assert [line for line in seen[name, width].violations if line.startswith(("serious", "critical"))] == []


@pytest.mark.parametrize("name", PAGES)
def test_long_names_fit_a_phone(seen: Any, name: str) -> None:
    assert seen[name, "phone"].page["wide_with_long_words"] <= 0


def test_the_browser_finds_what_is_wrong(chromium: Path, tmp_path: Path) -> None:
    """A page with each defect: the looks above have power."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><html><head><title>Bad</title></head><body><div style='width: 3000px'>wide</div>"
        "<img src='absent.png'><p style='color: #ccc; background: #fff'>faint words</p>"
        "<script>console.error('no')</script></body></html>"
    )
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(chromium), args=FLAGS)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        messages: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: messages.append(message.type))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(bad.as_uri())
        facts = page.evaluate(SEEN)
        rules = {rule["id"] for rule in Axe().run(page).response["violations"]}
        browser.close()
    assert facts["wide"] > 2000 and len(facts["images"]) == 1
    assert "error" in messages and len(requests) == 2
    assert {"color-contrast", "image-alt", "html-has-lang"} <= rules
