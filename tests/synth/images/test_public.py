"""Public pictures: read whole or refused by name, and what they teach about detail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from synth.config import Public, Source
from synth.errors import UserError
from synth.image_schema import ImageSchema
from synth.images import public as reading
from synth.images.denoise import denoise
from synth.images.model import model_of
from synth.images.pretrain import pretrain
from synth.images.public import read_public
from synth.images.sample import draw_pixels
from synth.refinement import RefineSettings

WORDS = "Drawn for this test, licence CC0"
SETTINGS = RefineSettings(
    learning_rate=3e-3, hidden_size=32, weight=1.0, max_rows_per_person=1, accelerator="cpu", threads=1
)


def drawn(count: int, seed: int = 0) -> list[bytes]:
    """Different pictures of 16 × 8 pixels, as PNG, JPEG and TIFF in turn."""
    rng, found = np.random.default_rng(seed), []
    for i in range(count):
        out = BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 16), dtype=np.uint8)).save(out, ("PNG", "JPEG", "TIFF")[i % 3])
        found.append(out.getvalue())
    return found


@pytest.fixture
def asked(tmp_path: Path, image_schema: Callable[..., ImageSchema]) -> Callable[..., Any]:
    """Read the public pictures of a path below `tmp_path`, for pictures of 8 × 8 that are cropped to size."""
    (tmp_path / "private.parquet").write_bytes(b"")

    def read(path: str = "pictures", source: str = "private.parquet", folder: str | None = None) -> Any:
        named = Source(path=tmp_path / source).model_copy(update={"folder": folder and tmp_path / folder})
        public = Public(path=tmp_path / path, declared=WORDS)
        return read_public(public, image_schema(resize="crop").image, source=named)

    return read


def write(folder: Path, contents: list[bytes], name: str = "{}.png") -> None:
    for i, content in enumerate(contents):
        file = folder / name.format(i)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def test_a_folder_and_a_file_of_the_same_pictures_are_the_same(tmp_path: Path, asked: Callable[..., Any]) -> None:
    """Whatever they are called and in whatever order; in the declared size, by the declared rule."""
    contents = drawn(40)
    write(tmp_path / "pictures", contents)
    write(tmp_path / "pictures", [b"not looked at"], ".hidden-{}")
    write(tmp_path / "others", contents[::-1], "deep/er/{}.jpg")
    rows = [{"image": {"bytes": content, "path": None}, "label": "?"} for content in contents]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "struct.parquet")
    pq.write_table(pa.table({"image": contents[::-1]}), tmp_path / "bytes.parquet")
    found = [asked(name) for name in ("pictures", "others", "struct.parquet", "bytes.parquet")]
    assert all(np.array_equal(one.pixels, found[0].pixels) and one.sha256 == found[0].sha256 for one in found)
    assert found[0].pixels.shape == (40, 8, 8, 1)
    with Image.open(BytesIO(contents[0])) as image:
        middle = np.array(image)[:, 4:12]
    assert any(np.array_equal(one[..., 0], middle) for one in found[0].pixels)
    (tmp_path / "pictures" / "0.png").write_bytes(drawn(1, seed=1)[0])
    assert asked().sha256 != found[0].sha256


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (b"no picture", r"pictures: 7\.png cannot be read as a picture \(neither PNG"),
        (drawn(1)[0][:60], r"7\.png cannot be read as a picture \(damaged"),
        (b"", r"7\.png cannot be read as a picture \(no such file"),
    ],
    ids=["other", "cut", "empty"],
)
def test_a_broken_one_is_named(tmp_path: Path, asked: Callable[..., Any], broken: bytes, words: str) -> None:
    write(tmp_path / "pictures", drawn(40))
    (tmp_path / "pictures" / "7.png").write_bytes(broken)
    with pytest.raises(UserError, match=words) as refused:
        asked()
    assert "\n" not in str(refused.value)


def test_other_refusals(tmp_path: Path, asked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "pictures", drawn(31))
    pq.write_table(pa.table({"picture": drawn(3)}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"image": ["text"]}), tmp_path / "text.parquet")
    (tmp_path / "alias.parquet").hardlink_to(tmp_path / "private.parquet")
    for given, words in (
        ({"path": "nothing"}, "no such folder or file"),
        ({}, "holds 31 pictures and should hold at least 32"),
        ({"path": "private.parquet"}, "is of the source, which is private"),
        ({"path": "alias.parquet"}, "is of the source, which is private"),
        ({"source": "labels.csv", "folder": "pictures"}, "is of the source, which is private"),
        ({"source": "labels.csv", "folder": "pictures/private"}, "is of the source, which is private"),
        ({"path": "pictures/1.png"}, "should be a folder of pictures or an intact Parquet file"),
        ({"path": "other.parquet"}, "should have a column image of bytes"),
        ({"path": "text.parquet"}, "should have a column image of bytes"),
    ):
        with pytest.raises(UserError, match=words):
            asked(**given)
    monkeypatch.setattr(reading, "MOST_BYTES", 30 * 2 * 64)
    with pytest.raises(UserError, match="holds more than 30 pictures"):
        asked()


def bars(count: int, seed: int) -> np.ndarray:
    """Pictures [count, 8, 8, 1] with a sharp edge somewhere, upright or level."""
    rng = np.random.default_rng(seed)
    lit = np.arange(8)[None, :] < rng.integers(2, 7, count)[:, None]
    pixels = np.where(lit, 230, 20).astype(np.uint16)[:, None, :].repeat(8, axis=1)
    pixels[::2] = pixels[::2].transpose(0, 2, 1)
    return pixels[..., None]


def test_public_pictures_teach_sharp_edges(toy: Any, image_schema: Callable[..., ImageSchema]) -> None:
    """Ten low frequencies blur them. The same pictures give the same weights, and others' draws are left alone."""
    schema, pixels = image_schema(classes=2), bars(600, seed=1)
    run = toy(schema.image, classes=2, epsilon=20, limit=10, batch=300)
    _, measured = run.measure(pixels, np.arange(600) % 2)
    model = model_of(schema, denoise(measured, run.transform.frequency), rows=600)
    state = torch.get_rng_state()
    first, second = (pretrain(model, bars(500, seed=2), steps=150, settings=SETTINGS) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not first.training and all(p.requires_grad for p in first.parameters())
    assert float(first.by_class.weight.detach().abs().max()) == 0  # of no class

    def between(residual: Any) -> float:
        """Share of pixels that are neither dark nor lit, in drawn pictures."""
        made = draw_pixels(replace(model, residual=residual), np.arange(400) % 2, np.random.default_rng(0))
        return float(((made > 60) & (made < 190)).mean())

    assert between(None) > 0.25
    assert between(first) < 0.8 * between(None)
