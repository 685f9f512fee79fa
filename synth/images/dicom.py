"""DICOM: the frames of one file as pixels. Of its header only what says how the pixels are to be read is looked at.

Values go through the modality transformation (rescale or LUT), then the declared window or the file's own VOI
transformation, then MONOCHROME1 is turned over: DICOM PS3.4 N.2. Enhanced multi-frame files have the first two by
frame, in functional groups. Overlays, which can hold names, are never drawn.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread, uid
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi

from synth.image_files import DicomReading
from synth.image_schema import ImageFormat
from synth.images import codecs
from synth.images.unreadable import MOST_PIXELS, Unreadable, Why
from synth.images.voi import FloatArray, levels_as_pixels, spread, windowed

UInt16Array = npt.NDArray[np.uint16]

NATIVE = {
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
}
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
COLOURS = {"RGB", "PALETTE COLOR"}
GREYS = {"MONOCHROME1", "MONOCHROME2"}
PALETTE = [
    f"{segmented}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
TAGS = [
    *PIXELS,
    *PALETTE,
    "BitsAllocated",
    "BitsStored",
    "BurnedInAnnotation",
    "Columns",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "HighBit",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "PlanarConfiguration",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SamplesPerPixel",
    "SharedFunctionalGroupsSequence",
    "VOILUTFunction",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
]
"""All that is read of a file: nothing that names a patient, a place or a date."""
TRANSFORMATIONS = {
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
}
"""The functional groups by frame, and what stands in them (PS3.3 C.7.6.16.2.9 and .10)."""


class DicomFile:
    """A DICOM file whose header is read.

    Attributes:
        count: its frames.
        burned_in: whether the header says that text is drawn into the pixels (0028,0301).
    """

    def __init__(self, content: bytes, form: ImageFormat) -> None:
        """Read the header. Raises Unreadable, or anything on a damaged file."""
        self._form, self._reading = form, form.dicom or DicomReading()
        data = self._data = dcmread(BytesIO(content), specific_tags=list(TAGS))
        syntax = data.file_meta.TransferSyntaxUID
        if syntax in codecs.SYNTAXES:
            codecs.register()
            self._plugin = codecs.NAME
        elif syntax in NATIVE or syntax == uid.RLELossless:
            self._plugin = "" if syntax in NATIVE else "pydicom"
        else:
            raise Unreadable(Why.SYNTAX)
        if not any(keyword in data for keyword in PIXELS):
            raise Unreadable(Why.NO_PIXELS)
        if int(data.Rows) * int(data.Columns) > MOST_PIXELS:
            raise Unreadable(Why.LARGE)
        self._decoder = get_decoder(syntax)
        self.count = int(data.get("NumberOfFrames") or 1)
        self.burned_in = str(data.get("BurnedInAnnotation") or "").strip().upper() == "YES"

    def pixels(self, frame: int) -> UInt16Array:
        """One frame [h, w, 1 or 3], of the form's bits. Raises Unreadable, or anything on a damaged file."""
        data = self._data
        found, is_now = self._decoder.as_array(data, index=frame, raw=False, decoding_plugin=self._plugin)
        colours = str(is_now["photometric_interpretation"])
        is_float = "PixelData" not in data
        if not is_float and data.get("HighBit", data.BitsStored - 1) != data.BitsStored - 1:
            raise Unreadable(Why.PIXELS)
        if colours in COLOURS:
            return self._colour(found, colours)
        if colours not in GREYS or found.ndim != 2:
            raise Unreadable(Why.PIXELS)
        levels = self._levels(found, _by_frame(data, frame), is_float=is_float)
        return levels_as_pixels(1 - levels if colours == "MONOCHROME1" else levels, self._form.bits)[:, :, None]

    def _colour(self, found: npt.NDArray[np.generic], colours: str) -> UInt16Array:
        bits = int(self._data.BitsStored)
        if colours == "PALETTE COLOR":
            found = apply_color_lut(found, self._data)
            bits = 8 * found.dtype.itemsize
        if found.dtype.kind != "u" or found.ndim != 3 or found.shape[2] != 3:
            raise Unreadable(Why.PIXELS)
        return levels_as_pixels(spread(found.astype(np.float64), 0, (1 << bits) - 1), self._form.bits)

    def _levels(self, stored: npt.NDArray[np.generic], says: Dataset, *, is_float: bool) -> FloatArray:
        """Levels in [0, 1] of a grey frame."""
        window = self._reading.window
        if window == "stored":
            if is_float:
                raise Unreadable(Why.PIXELS)
            bits, signed = int(says.BitsStored), bool(says.PixelRepresentation)
            low = -(1 << (bits - 1)) if signed else 0
            return spread(stored.astype(np.float64), low, low + (1 << bits) - 1)
        values = np.asarray(apply_modality_lut(stored, says), dtype=np.float64)
        if window != "file":
            return windowed(values, *window)
        if says.get("VOILUTSequence"):
            table = apply_voi(np.rint(values).astype(np.int64), says)
            depth = says.VOILUTSequence[0].LUTDescriptor[2]
            return spread(table.astype(np.float64), 0, (1 << depth) - 1)
        centre, width = (_first(says.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
        if centre is None or width is None:
            finite = values[np.isfinite(values)]
            return spread(values, finite.min(initial=np.inf), finite.max(initial=-np.inf))
        return windowed(values, centre, width, str(says.get("VOILUTFunction") or "LINEAR").strip().upper())


def _first(value: object) -> float | None:
    """The first of several windows: the one that a viewer shows."""
    values = list(value) if isinstance(value, (list, tuple)) or hasattr(value, "__iter__") else [value]
    return None if not values or values[0] in (None, "") else float(str(values[0]))


def _by_frame(data: Dataset, frame: int) -> Dataset:
    """The header with the transformations that hold for one frame: its own, else those of all frames."""
    says = Dataset(data)
    says.file_meta = data.file_meta
    groups = [
        group[at]
        for keyword, at in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", frame))
        if (group := data.get(keyword)) and at < len(group)
    ]
    for group in groups:
        for sequence, keywords in TRANSFORMATIONS.items():
            for item in group.get(sequence) or []:
                for keyword in keywords:
                    if keyword in item:
                        says[keyword] = item[keyword]
    return says
