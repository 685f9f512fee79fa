"""DICOM: every transfer syntax, colour and window, beside pydicom's own functions; and what is refused."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, apply_windowing, pixel_array
from pydicom.sequence import Sequence

from synth.image_schema import ImageFormat
from synth.images.codecs import size_of
from synth.images.dicom import TAGS, DicomFile
from synth.images.unreadable import Unreadable, Why
from synth.images.voi import windowed

DicomOf = Callable[..., bytes]
RNG = np.random.default_rng(5)
WIDE = RNG.integers(0, 1 << 16, (12, 10)).astype(np.uint16)
SMOOTH = (np.add.outer(np.arange(16), np.arange(16)) * 8).astype(np.uint8)
COLOUR = np.stack([SMOOTH, SMOOTH[::-1], 255 - SMOOTH], axis=2)
PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"


def form(bits: int = 16, **dicom: Any) -> ImageFormat:
    return ImageFormat.model_validate({"height": 8, "width": 8, "bits": bits, "dicom": dicom})


def read(content: bytes, bits: int = 16, frame: int = 0, **dicom: Any) -> np.ndarray:
    return DicomFile(content, form(bits, **dicom)).pixels(frame)


def why(content: bytes, **dicom: Any) -> Why:
    with pytest.raises(Unreadable) as raised:
        read(content, **dicom)
    return raised.value.why


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.RLELossless,
    ],
)
def test_native_and_rle(dicom_of: DicomOf, syntax: str) -> None:
    assert (read(dicom_of(WIDE, syntax), window="stored")[:, :, 0] == WIDE).all()
    assert (read(dicom_of(SMOOTH, syntax), 8, window="stored")[:, :, 0] == SMOOTH).all()
    assert (read(dicom_of(COLOUR, syntax), 8) == COLOUR).all()
    frames = np.stack([WIDE, WIDE[::-1], WIDE[:, ::-1]])
    content = dicom_of(frames, syntax)
    assert DicomFile(content, form()).count == 3
    for i in range(3):
        assert (read(content, frame=i, window="stored")[:, :, 0] == frames[i]).all()


TWELVE = WIDE >> 4
ENCODED = {
    "lossless JPEG": (uid.JPEGLosslessSV1, WIDE, lambda x: imagecodecs.jpeg8_encode(x, lossless=True, predictor=1)),
    "lossless JPEG, other predictor": (
        uid.JPEGLossless,
        TWELVE,
        lambda x: imagecodecs.jpeg8_encode(x, lossless=True, predictor=4, bitspersample=12),
    ),
    "JPEG-LS": (uid.JPEGLSLossless, WIDE, imagecodecs.jpegls_encode),
    "JPEG 2000": (uid.JPEG2000Lossless, WIDE, lambda x: imagecodecs.jpeg2k_encode(x, codecformat="J2K", level=0)),
    "HTJ2K": (uid.HTJ2KLossless, WIDE, lambda x: imagecodecs.htj2k_encode(x, reversible=True)),
    "HTJ2K RPCL": (uid.HTJ2KLosslessRPCL, WIDE, lambda x: imagecodecs.htj2k_encode(x, reversible=True)),
    "HTJ2K, lossy syntax": (uid.HTJ2K, WIDE, lambda x: imagecodecs.htj2k_encode(x, reversible=True)),
    "JPEG 2000, lossy syntax": (uid.JPEG2000, WIDE, lambda x: imagecodecs.jpeg2k_encode(x, codecformat="J2K", level=0)),
    "JPEG-LS, lossy syntax": (uid.JPEGLSNearLossless, WIDE, imagecodecs.jpegls_encode),
}
LOSSY = {
    "JPEG baseline": (uid.JPEGBaseline8Bit, SMOOTH, lambda x: imagecodecs.jpeg8_encode(x, level=95), 4),
    "JPEG of 12 bits": (
        uid.JPEGExtended12Bit,
        SMOOTH.astype(np.uint16) << 4,
        lambda x: imagecodecs.jpeg8_encode(x, level=95, bitspersample=12),
        64,
    ),
    "JPEG-LS nearly": (uid.JPEGLSNearLossless, WIDE, lambda x: imagecodecs.jpegls_encode(x, level=3), 3),
    "JPEG 2000 lossy": (
        uid.JPEG2000,
        SMOOTH,
        lambda x: imagecodecs.jpeg2k_encode(x, codecformat="J2K", level=50, reversible=False),
        4,
    ),
}


def encoded(dicom_of: DicomOf, syntax: str, pixels: np.ndarray, encode: Callable[..., bytes], **tags: Any) -> bytes:
    bits = 8 * pixels.itemsize if pixels.max() >= 4096 or pixels.itemsize == 1 else 12
    size = {"Rows": pixels.shape[0], "Columns": pixels.shape[1]}
    depth = {"BitsAllocated": 8 * pixels.itemsize, "BitsStored": bits, "HighBit": bits - 1}
    return dicom_of([bytes(encode(pixels))], syntax, **size | depth | tags)


@pytest.mark.parametrize("kind", ENCODED)
def test_what_is_encoded_without_loss_comes_back(dicom_of: DicomOf, kind: str) -> None:
    syntax, pixels, encode = ENCODED[kind]
    content = encoded(dicom_of, syntax, pixels, encode)
    levels = pixels / (4095 if pixels is TWELVE else 65535)
    assert (read(content, window="stored")[:, :, 0] == np.rint(levels * 65535)).all()


@pytest.mark.parametrize("kind", LOSSY)
def test_what_is_encoded_with_loss_comes_back_nearly(dicom_of: DicomOf, kind: str) -> None:
    syntax, pixels, encode, off = LOSSY[kind]
    content = encoded(dicom_of, syntax, pixels, encode)
    step = {"JPEG of 12 bits": 65535 / 4095, "JPEG-LS nearly": 1}.get(kind, 257)
    found = read(content, window="stored")[:, :, 0].astype(float) / step
    assert np.abs(found - pixels).max() <= off


def test_colour_that_is_encoded(dicom_of: DicomOf) -> None:
    colours = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
    lossless = encoded(
        dicom_of,
        uid.JPEG2000Lossless,
        COLOUR,
        lambda x: imagecodecs.jpeg2k_encode(x, codecformat="J2K", level=0),
        PhotometricInterpretation="YBR_RCT",
        **colours,
    )
    assert (read(lossless, 8) == COLOUR).all()
    baseline = encoded(
        dicom_of,
        uid.JPEGBaseline8Bit,
        COLOUR,
        lambda x: imagecodecs.jpeg8_encode(x, level=95, subsampling="444"),
        PhotometricInterpretation="YBR_FULL",
        **colours,
    )
    assert np.abs(read(baseline, 8).astype(int) - COLOUR).max() < 12


def levels_of(data: Dataset, frame: int) -> np.ndarray:
    """What pydicom makes of a frame by the file's own window, in [0, 1]."""
    stored = pixel_array(data, index=frame)
    if data.PhotometricInterpretation == "PALETTE COLOR":
        found = apply_color_lut(stored, data)
        return found / np.iinfo(found.dtype).max
    if data.SamplesPerPixel == 3:
        return stored / (2.0**data.BitsStored - 1)
    values = apply_modality_lut(stored, data)
    if "WindowCenter" in data:
        seen = apply_voi_lut(values, data).astype(float)
        low = -(2 ** (data.BitsStored - 1)) if data.PixelRepresentation else 0
        ends = np.array([low, low + 2**data.BitsStored - 1])
        ends = ends * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    else:
        seen = values.astype(float)
        ends = np.array([seen.min(), seen.max()])
    levels = (seen - ends[0]) / max(ends[1] - ends[0], 1e-9)
    return 1 - levels if data.PhotometricInterpretation == "MONOCHROME1" else levels


def files_of_pydicom() -> list[Path]:
    """Pictures that come with pydicom and that it decodes with what every environment has."""
    found = []
    for path in sorted(PACKAGED.glob("**/*")):
        if path.is_file() and path.stat().st_size < 300_000 and b"DICM" in path.read_bytes()[:132]:
            data = dcmread(path, specific_tags=["Rows", "PixelData"], defer_size=64)
            syntax = data.file_meta.get("TransferSyntaxUID", "")
            native = syntax in {uid.JPEGBaseline8Bit, uid.RLELossless} or not getattr(syntax, "is_compressed", True)
            if "PixelData" in data and "Rows" in data and (native or syntax in uid.JPEG2000TransferSyntaxes):
                found.append(path)
    return found


BROKEN = {"MR_truncated.dcm", "badVR.dcm", "JPEG2000-embedded-sequence-delimiter.dcm"}
"""Pixels missing, a header that is no header, a frame cut short."""


@pytest.mark.filterwarnings("ignore")  # pydicom's, about files that were made to be odd
def test_files_that_come_with_pydicom() -> None:
    files = files_of_pydicom()
    assert len(files) > 60 and {path.name for path in files} > BROKEN
    for path in files:
        content = path.read_bytes()
        if path.name in BROKEN:
            with pytest.raises(Exception):  # noqa: B017 - which one depends on the decoder
                read(content)
            continue
        data = dcmread(BytesIO(content))
        for frame in range(min(2, int(data.get("NumberOfFrames") or 1))):
            expected = levels_of(data, frame)
            found = read(content, frame=frame) / 65535
            # Half a step of 16 bits; decoders of JPEG round colours each in its own way, by up to 3 of 255.
            most = 3 / 255 if data.file_meta.TransferSyntaxUID == uid.JPEGBaseline8Bit else 0.51 / 65535
            assert np.abs(found.squeeze() - expected).max() <= most, path.name


def test_packaged_files_that_pydicom_alone_cannot_decode() -> None:
    def packaged(name: str) -> bytes:
        found = get_testdata_file(name, download=False)
        assert isinstance(found, str)
        return Path(found).read_bytes()

    plain = read(packaged("MR_small.dcm"))
    assert (read(packaged("MR_small_jpeg_ls_lossless.dcm")) == plain).all()
    assert (read(packaged("SC_rgb_jpeg_gdcm.dcm"), 8) == read(packaged("SC_rgb_rle.dcm"), 8)).all()  # lossless JPEG
    assert read(packaged("JPGExtended.dcm")).shape == (1024, 256, 1)


WHOLE = st.integers(-32768, 32767)


@given(
    st.lists(WHOLE, min_size=1, max_size=30),
    st.floats(-40_000, 40_000),
    st.one_of(st.just(1.0), st.floats(1, 70_000)),
    st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_windows_are_those_of_pydicom(values: list[int], centre: float, width: float, function: str) -> None:
    data = Dataset()
    data.PhotometricInterpretation, data.BitsStored, data.PixelRepresentation = "MONOCHROME2", 16, 1
    data.WindowCenter, data.WindowWidth, data.VOILUTFunction = round(centre, 3), round(width, 3), function
    array = np.array(values, dtype=np.int16)
    with np.errstate(over="ignore"):
        expected = (apply_windowing(array, data) + 32768) / 65535
    found = windowed(array.astype(float), float(data.WindowCenter), float(data.WindowWidth), function)
    assert np.abs(found - expected).max() < 1e-9
    assert ((found >= 0) & (found <= 1)).all()


def test_windows_by_hand(dicom_of: DicomOf) -> None:
    ramp = np.array([[-1024, -160, 39, 40, 239, 3000]] * 4, dtype=np.int16) + 1024
    ct = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": [0, 7], "WindowWidth": [2, 7]}
    content = dicom_of(ramp, **ct)
    # LINEAR: black up to c - .5 - (w - 1)/2 = -160, white above c - .5 + (w - 1)/2 = 239.
    assert read(content, 8, window=[40, 400])[0, :, 0].tolist() == [0, 0, 127, 128, 255, 255]
    assert read(content, 8, window="file")[0, :, 0].tolist() == [0, 0, 255, 255, 255, 255]  # the first of the two
    stored = np.rint((ramp[0].astype(float) + 32768) / 65535 * 255)
    assert read(content, 8, window="stored")[0, :, 0].tolist() == stored.tolist()
    inverted = dicom_of(ramp, PhotometricInterpretation="MONOCHROME1", **ct)
    assert read(inverted, 8, window=[40, 400])[0, :, 0].tolist() == [255, 255, 128, 127, 0, 0]
    without = dicom_of(ramp, RescaleSlope=-2, RescaleIntercept=5)
    levels = 255 * (ramp.max() - ramp[0].astype(float)) / ramp.max()
    assert read(without, 8)[0, :, 0].tolist() == np.rint(levels).tolist()
    assert (read(dicom_of(np.full((4, 4), 9, np.uint16)), 8) == 0).all(), "a constant picture has no contrast"
    for broken in ({"WindowWidth": 0}, {"VOILUTFunction": "CUBIC"}):
        assert why(dicom_of(ramp, **ct | broken)) == Why.WINDOW


def test_tables_of_values(dicom_of: DicomOf) -> None:
    stored = np.array([[0, 1, 2, 3], [4, 5, 6, 7]] * 2, dtype=np.uint8)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 2, 8], [0, 100, 200, 250]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    expected = [0, 0, 0, 100, 200, 250, 250, 250]
    voi = dicom_of(stored, VOILUTSequence=Sequence([table]), WindowCenter=4, WindowWidth=2)
    assert read(voi, 8)[:2, :, 0].reshape(-1).tolist() == expected, "a table goes before a window"
    modality = dicom_of(stored, ModalityLUTSequence=Sequence([table]))
    assert read(modality, 8, window=[127.5 + 0.5, 256])[:2, :, 0].reshape(-1).tolist() == expected
    colours = {}
    for i, name in enumerate(("Red", "Green", "Blue")):
        colours[f"{name}PaletteColorLookupTableDescriptor"] = [8, 0, 16]
        colours[f"{name}PaletteColorLookupTableData"] = (np.arange(8) * 1000 * (i + 1)).astype("<u2").tobytes()
    palette = dicom_of(stored, PhotometricInterpretation="PALETTE COLOR", **colours)
    assert (read(palette) == stored[:, :, None] * np.array([1000, 2000, 3000])).all()


def test_enhanced_files_have_transformations_by_frame(dicom_of: DicomOf) -> None:
    def transformation(**tags: float) -> Sequence:
        item = Dataset()
        for keyword, value in tags.items():
            setattr(item, keyword, value)
        return Sequence([item])

    shared, own = Dataset(), [Dataset(), Dataset()]
    shared.FrameVOILUTSequence = transformation(WindowCenter=100, WindowWidth=201)
    shared.PixelValueTransformationSequence = transformation(RescaleSlope=1, RescaleIntercept=0)
    own[1].PixelValueTransformationSequence = transformation(RescaleSlope=2, RescaleIntercept=-50)
    frames = np.full((2, 4, 4), 80, dtype=np.uint16)
    content = dicom_of(
        frames, SharedFunctionalGroupsSequence=Sequence([shared]), PerFrameFunctionalGroupsSequence=Sequence(own)
    )
    assert [int(read(content, 8, frame=i)[0, 0, 0]) for i in range(2)] == [
        round(255 * ((value - 99.5) / 200 + 0.5)) for value in (80, 110)
    ]


def test_floats_have_no_stored_range(dicom_of: DicomOf) -> None:
    values = np.array([[0, 1, np.nan, 3]] * 4, dtype=np.float32)
    content = dicom_of(np.zeros((4, 4), np.uint8), PixelData=None, BitsAllocated=32, FloatPixelData=values.tobytes())
    assert why(content, window="stored") == Why.PIXELS
    assert read(content, 8)[0, :, 0].tolist() == [0, 85, 0, 255]
    assert read(content, 8, window=[1.5, 3])[0, :, 0].tolist() == [0, 128, 0, 255]


def test_what_is_refused(dicom_of: DicomOf) -> None:
    assert why(dicom_of(SMOOTH, PixelData=None)) == Why.NO_PIXELS
    assert why(dicom_of([b"video"], uid.MPEG2MPML, Rows=4, Columns=4, BitsAllocated=8, BitsStored=8)) == Why.SYNTAX
    assert why(dicom_of(SMOOTH, Rows=60_000, Columns=60_000)) == Why.LARGE
    assert why(dicom_of(WIDE, BitsStored=12, HighBit=15)) == Why.PIXELS  # values in the upper bits, retired
    assert why(dicom_of(COLOUR, PhotometricInterpretation="CMYK")) == Why.PIXELS
    sixteen = {"Rows": 16, "Columns": 16, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    larger = imagecodecs.jpegls_encode(np.zeros((64, 64), np.uint8))
    for broken in (
        dicom_of(SMOOTH, Rows=17),
        dicom_of([bytes(larger)], uid.JPEGLSLossless, **sixteen),
        dicom_of([bytes(imagecodecs.jpegls_encode(np.zeros((8, 32), np.uint8)))], uid.JPEGLSLossless, **sixteen),
        dicom_of(SMOOTH)[:-20],
        dicom_of(SMOOTH)[:400],
    ):
        with pytest.raises(Exception):  # noqa: B017 - whatever pydicom raises; the process maps all of them to one
            read(broken)


@pytest.mark.parametrize("kind", ENCODED | LOSSY)
def test_a_frames_size_is_known_before_it_is_decoded(kind: str) -> None:
    _, pixels, encode, *_ = (ENCODED | LOSSY)[kind]
    content = bytes(encode(pixels))
    assert size_of(content) == pixels.shape
    for end in (0, 2, 3, 9, 20):
        with contextlib.suppress(struct.error):
            assert size_of(content[:end]) is None


def test_a_frame_that_says_another_size_is_never_decoded(dicom_of: DicomOf, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(imagecodecs.jpegls_encode(SMOOTH))
    at = content.index(b"\xff\xf7") + 5
    content[at : at + 4] = struct.pack(">2H", 60_000, 60_000)
    monkeypatch.setattr(imagecodecs, "jpegls_decode", lambda _: pytest.fail("decoded"))
    sixteen = {"Rows": 16, "Columns": 16, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    with pytest.raises(RuntimeError, match="size"):
        read(dicom_of([bytes(content)], uid.JPEGLSLossless, **sixteen))


def test_burned_in_text_is_told(dicom_of: DicomOf) -> None:
    for value, told in (("YES", True), ("NO", False), ("", False)):
        assert DicomFile(dicom_of(SMOOTH, BurnedInAnnotation=value), form()).burned_in is told


def test_nothing_that_names_anyone_is_read(dicom_of: DicomOf) -> None:
    file = DicomFile(dicom_of(SMOOTH), form())
    kept = {element.keyword for element in file._data}
    assert kept <= {*TAGS, "SpecificCharacterSet"} and "PixelData" in kept
    assert not any(word in keyword for keyword in TAGS for word in ("Patient", "Date", "Institution", "Overlay"))
