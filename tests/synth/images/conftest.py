"""Small picture forms, adversarial pictures, and a measurer whose noise is replaced by kept or given answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmwrite, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from synth.image_schema import ImageFormat, ImageSchema, parse_image_schema
from synth.images.measure import ImageMeasurements, ImageMeasurer
from synth.images.transform import Transform
from synth.privacy.image_budget import plan_images
from synth.privacy.noise import NoiseSource


@pytest.fixture(scope="session")
def image_schema() -> Callable[..., ImageSchema]:
    """`image_schema(classes=3, height=8, width=8, …)`: a schema of pictures."""

    def build(classes: int = 3, **image: Any) -> ImageSchema:
        raw = {
            "dataset": "toy",
            "kind": "image",
            "image": {"height": 8, "width": 8} | image,
            "target": {"name": "label", "classes": {i: f"class {i}" for i in range(classes)}},
        }
        return parse_image_schema(raw, file="schema.yaml")

    return build


def as_file(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """Pixels [h, w] or [h, w, 3] as Pillow writes them."""
    out = BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@pytest.fixture(scope="session")
def file_of() -> Callable[..., bytes]:
    return as_file


def as_dicom(pixels: np.ndarray | Sequence[bytes], syntax: str = uid.ExplicitVRLittleEndian, **tags: Any) -> bytes:
    """Frames [h, w], [h, w, 3] or [n, h, w], or encoded ones, as a DICOM file that names a patient.

    What the pixels are is told from their type; of encoded frames `tags` have to tell it.
    """
    data = Dataset()
    data.PatientName, data.PatientID = "zq-canary^name", "zq-canary-id"
    data.SOPClassUID, data.SOPInstanceUID = uid.SecondaryCaptureImageStorage, uid.generate_uid()
    if isinstance(pixels, np.ndarray):
        colour = pixels.ndim == 3 and pixels.shape[2] == 3
        frames = pixels.shape[0] if pixels.ndim == 3 and not colour else 0
        data.Rows, data.Columns = pixels.shape[1:3] if frames else pixels.shape[:2]
        data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
        bits = 8 * pixels.dtype.itemsize
        data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
        data.PixelRepresentation = int(pixels.dtype.kind == "i")
        if colour:
            data.PlanarConfiguration = 0
        if frames:
            data.NumberOfFrames = frames
        big = syntax == uid.ExplicitVRBigEndian
        content = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
        data.PixelData = content + b"\0" * (len(content) % 2)
        data["PixelData"].VR = "OW" if bits == 16 else "OB"
    else:
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.PixelData = encapsulate(list(pixels))
        data["PixelData"].VR = "OB"
    for keyword, value in tags.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = uid.UID(syntax)
    out = BytesIO()
    if syntax == uid.RLELossless and isinstance(pixels, np.ndarray):
        data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        data.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()


@pytest.fixture(scope="session")
def dicom_of() -> Callable[..., bytes]:
    return as_dicom


def extreme_pictures(form: ImageFormat) -> np.ndarray:
    """Pictures that reach for a bound: constant, half and half, checkerboards, one pixel, stripes, a ramp."""
    y, x, _ = np.indices(form.shape)
    patterns = [
        np.zeros(form.shape),
        np.ones(form.shape),
        (y + x) % 2,
        (y // 2 + x // 2) % 2,
        y % 2,
        x % 2,
        x < form.width // 2,
        y < form.height // 2,
        (y == 0) & (x == 0),
        1 - ((y == 3) & (x == 3)),
        (x + y) / (form.height + form.width),
    ]
    return np.rint(np.stack(patterns) * (form.high - form.low) + form.low).astype(np.uint16)


@dataclass
class Kept(NoiseSource):
    """Keeps every exact array with its noise scale; gives given answers out again instead of drawing.

    `loosely` replaces an answer that no longer fits (an earlier one has changed the shape of what follows).
    """

    answers: Sequence[np.ndarray] | None = None
    loosely: bool = False
    event: str = ""
    draws: list[tuple[str, np.ndarray, float]] = field(default_factory=list)
    given: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def charge(self, name: str) -> None:
        assert all(event != name for event, _, _ in self.draws), "drawn before it was charged"
        self.event = name

    def add_to(self, exact: np.ndarray, noise_scale: float) -> np.ndarray:
        assert np.issubdtype(exact.dtype, np.integer)
        answer = exact + noise_scale * self.rng.standard_normal(exact.shape)
        if self.answers is not None:
            fits = len(self.draws) < len(self.answers) and self.answers[len(self.draws)].shape == exact.shape
            assert fits or self.loosely, "the shape of a release follows the data"
            answer = self.answers[len(self.draws)] if fits else answer
        self.draws.append((self.event, exact.copy(), noise_scale))
        self.given.append(answer)
        return answer


@dataclass(frozen=True)
class Toy:
    """The measured half of a run, on pictures in memory."""

    form: ImageFormat
    classes: int = 3
    epsilon: float = 1.0
    max_rows_per_person: int = 1
    batch: int = 4
    limit: int = 24

    @property
    def transform(self) -> Transform:
        return Transform(self.form, limit=self.limit)

    @property
    def plan(self) -> Any:
        return plan_images(epsilon=self.epsilon, delta=1e-5, max_rows_per_person=self.max_rows_per_person)

    def measure(
        self,
        pictures: np.ndarray,
        labels: Sequence[int],
        answers: Sequence[np.ndarray] | None = None,
        *,
        loosely: bool = False,
    ) -> tuple[Kept, ImageMeasurements]:
        kept, x = Kept(answers=answers, loosely=loosely), np.asarray(labels, dtype=np.int64)

        def read() -> Any:
            for start in range(0, len(x), self.batch):
                part = slice(start, start + self.batch)
                yield x[part], self.transform.coefficients(pictures[part])

        measurer = ImageMeasurer(
            read=read,
            transform=self.transform,
            classes=self.classes,
            plan=self.plan,
            noise=kept,
            charge=kept.charge,
        )
        return kept, measurer.measure()


@pytest.fixture(scope="session")
def toy() -> type[Toy]:
    return Toy


@pytest.fixture(scope="session")
def extremes() -> Callable[[ImageFormat], np.ndarray]:
    return extreme_pictures
