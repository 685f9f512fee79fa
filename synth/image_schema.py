"""schema.yaml of images: one picture and one label a row, declared before anyone looks at the data.

    dataset: digits
    kind: image
    image: {height: 28, width: 28, channels: 1, bits: 8, value_range: [0, 255], resize: pad}
    target: {name: label, classes: {0: zero, 1: one}}
    privacy_unit: row

The size, the value range and the list of classes are public knowledge; nothing of a picture but its declared pixels
is ever used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from synth.errors import InvalidConfig, UnconfirmedDomain
from synth.image_files import SECTIONS, DicomReading, NiftiReading, TiffReading, is_several
from synth.schema import LARGEST_WHOLE, Declaration, Schema, Whole, parse_schema
from synth.yaml_file import keys_of, problems_of, read_yaml

MAX_SIDE = 1024
MAX_CLASSES = 256
IMAGE_COLUMN, FILE_COLUMN = "image", "file"
"""Of a Parquet file, and of a folder's table of labels."""


class ImageFormat(BaseModel):
    """The form every picture is brought into, and has on output.

    `value_range` is the lowest and highest pixel value (of `bits` bits); values outside of it are clipped. `resize`
    says what happens to a picture of another size: `pad` fits it inside and fills the rest with the lowest value,
    `crop` covers the frame and cuts off what stands out, `stretch` ignores its proportions. `dicom`, `nifti` and `tiff`
    say how such files are read; NIfTI only where they do. `domain: unconfirmed` marks a draft.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: Whole = Field(ge=4, le=MAX_SIDE)
    width: Whole = Field(ge=4, le=MAX_SIDE)
    channels: Literal[1, 3] = 1
    bits: Literal[8, 16] = 8
    value_range: tuple[Whole, Whole] | None = None
    resize: Literal["pad", "crop", "stretch"] = "pad"
    dicom: DicomReading | None = None
    nifti: NiftiReading | None = None
    tiff: TiffReading | None = None
    domain: Literal["unconfirmed"] | None = None

    @model_validator(mode="after")
    def _range_fits(self) -> ImageFormat:
        if self.value_range is not None:
            low, high = self.value_range
            if not 0 <= low < high < 1 << self.bits:
                raise ValueError(
                    f"value_range should be [lowest, highest] within [0, {(1 << self.bits) - 1}] for {self.bits} bits"
                )
        return self

    @property
    def several(self) -> tuple[str, ...]:
        """The keys by which one file may hold several pictures."""
        found = {
            "dicom.frames": self.dicom and self.dicom.frames,
            "nifti.slices": self.nifti and self.nifti.slices,
            "tiff.pages": self.tiff and self.tiff.pages,
        }
        return tuple(key for key, selection in found.items() if selection and is_several(selection))

    @property
    def low(self) -> int:
        """The lowest pixel value."""
        return 0 if self.value_range is None else self.value_range[0]

    @property
    def high(self) -> int:
        """The highest pixel value."""
        return (1 << self.bits) - 1 if self.value_range is None else self.value_range[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.height, self.width, self.channels


def _some_classes(classes: dict[int, str]) -> dict[int, str]:
    if not 1 <= len(classes) <= MAX_CLASSES:
        raise ValueError(f"classes should hold 1 to {MAX_CLASSES} entries such as `0: normal`")
    if any(abs(value) >= LARGEST_WHOLE for value in classes):
        raise ValueError("the values of classes must lie within ±2^53")
    if len({name.strip() for name in classes.values()}) < len(classes):
        raise ValueError("two classes have the same name")
    return classes


class ImageTarget(BaseModel):
    """The label: its column's name, and the public list of its values with a name each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="label", min_length=1)
    classes: Annotated[dict[Whole, Annotated[str, Field(min_length=1)]], AfterValidator(_some_classes)]

    @property
    def values(self) -> tuple[int, ...]:
        """The label's values, in their declared order: class i is the i-th."""
        return tuple(self.classes)


class ImageSchema(Declaration):
    """schema.yaml of images, validated. Frozen."""

    kind: Literal["image"] = "image"
    image: ImageFormat
    target: ImageTarget

    @model_validator(mode="after")
    def _names_differ(self) -> ImageSchema:
        names = [IMAGE_COLUMN, self.target.name, *([self.privacy_unit] if self.privacy_unit != "row" else [])]
        if len(set(names)) < len(names):
            raise ValueError(f"privacy_unit, target and `{IMAGE_COLUMN}` must be three different columns")
        return self

    @model_validator(mode="after")
    def _one_picture_a_row(self) -> ImageSchema:
        if self.image.several and self.person_column is None:
            # With the row as unit, a file's pictures would be counted as those of as many people.
            raise ValueError(
                f"image.{self.image.several[0]}: several pictures of one file need the person column as privacy_unit"
            )
        return self

    @property
    def described_columns(self) -> tuple[dict[str, Any], ...]:
        """The columns of the output as the documents describe them."""
        form = self.image
        image = {"name": IMAGE_COLUMN, "kind": "image", **form.model_dump(mode="json", exclude_none=True)}
        image["value_range"] = [form.low, form.high]
        labels = {str(value): name for value, name in self.target.classes.items()}
        label = {"name": self.target.name, "kind": "categorical", "categories": list(self.target.values)}
        return image, {**label, "labels": labels}

    def restated(self) -> dict[str, Any]:
        """The kind, the whole form, and classes by number (JSON would have them as text)."""
        image, _ = self.described_columns
        image = {key: value for key, value in image.items() if key not in {"name", "kind"}}
        return {"kind": self.kind, "image": image, "target": self.target.model_dump()}

    def refuse_unconfirmed(self) -> None:
        """Raise UnconfirmedDomain when the form is a draft that the steward has not confirmed."""
        if self.image.domain is not None:
            raise UnconfirmedDomain(
                "schema: the form of image is a draft; replace it and the classes by public knowledge and remove "
                "`domain: unconfirmed`"
            )


def load_any_schema(path: Path) -> Schema | ImageSchema:
    """Read and validate schema.yaml, of a table or of images. Raises InvalidConfig or NotBuiltYet."""
    raw = read_yaml(path)
    return (parse_image_schema if is_of_images(raw) else parse_schema)(raw, file=str(path))


def is_of_images(raw: Mapping[str, Any]) -> bool:
    """Whether a schema's mapping declares images."""
    return raw.get("kind") == "image" or "image" in raw


def parse_image_schema(raw: dict[str, Any], *, file: str) -> ImageSchema:
    """Validate an image schema's mapping; all problems together. Raises InvalidConfig."""
    problems = []
    if "columns" in raw:
        problems.append("columns: a schema of images declares `image` and `target` instead")
        raw = {key: value for key, value in raw.items() if key != "columns"}
    if raw.get("privacy_unit", "row") == "row" and raw.get("max_rows_per_person", 1) not in (1, 1.0):
        problems.append("max_rows_per_person: above 1 needs the person column as privacy_unit")
    schema = None
    try:
        schema = ImageSchema.model_validate(raw)
    except ValidationError as error:
        problems += problems_of(error, known=keys_of(ImageSchema, ImageFormat, ImageTarget, *SECTIONS))
    if problems or schema is None:
        raise InvalidConfig(file, problems)
    return schema
