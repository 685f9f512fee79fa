"""Content credentials of sheets: what they say, that a changed pixel shows, and whose certificate is taken."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from synth.config import ContentCredentials
from synth.errors import UserError, VerificationFailed
from synth.image_schema import ImageFormat, ImageSchema
from synth.images.contact_sheet import picture_sheets
from synth.images.credentials import Credentials, credentials_for, of_steward
from synth.images.denoise import ClassGaussians
from synth.images.model import model_of
from synth.images.picture import read_picture
from synth.images.png import SIGNATURE, write_png
from synth.parquet import DIGITAL_SOURCE_TYPE
from synth.release import credentials as reading
from synth.release.credentials import check_credentials, failures

RUN, DAY = "ward-20200229T113007Z-abcdef", "2020-02-29T11:30:07Z"
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 1)).astype(np.uint16)


def own() -> Credentials:
    found = credentials_for(None, run_id=RUN, created=DAY)
    assert found is not None
    return found


def told(png: bytes) -> dict[str, Any]:
    """What any reader of C2PA sees."""
    with c2pa.Reader("image/png", BytesIO(png)) as reader:
        found: dict[str, Any] = json.loads(reader.json())
    return found


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], len(SIGNATURE)
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def joined(parts: list[tuple[bytes, bytes]]) -> bytes:
    whole = (kind + data for kind, data in parts)
    return SIGNATURE + b"".join(
        (len(part) - 4).to_bytes(4, "big") + part + zlib.crc32(part).to_bytes(4, "big") for part in whole
    )


def with_another_pixel(png: bytes) -> bytes:
    """The same file with one pixel changed, and else a faultless PNG."""

    def changed(data: bytes) -> bytes:
        plain = bytearray(zlib.decompress(data))
        plain[5] ^= 1
        return zlib.compress(bytes(plain))

    return joined([(kind, changed(data) if kind == b"IDAT" else data) for kind, data in chunks(png)])


@pytest.mark.parametrize(("bits", "channels"), [(8, 1), (8, 3), (16, 1), (16, 3)])
def test_a_sheet_says_what_it_is_and_shows_what_it_showed(bits: int, channels: int) -> None:
    pixels = np.repeat(PIXELS, channels, axis=2) * (257 if bits == 16 else 1)
    plain = write_png(pixels, bits)
    png = own().signed(plain, title="class-0.png")
    form = ImageFormat(height=20, width=30, channels=channels, bits=bits)
    shown = read_picture(png, form)
    assert shown is not None and np.array_equal(shown, pixels)
    assert [part for part in chunks(png) if part[0] != b"caBX"] == chunks(plain)
    found = told(png)
    assert found["validation_state"] == "Valid"  # and not "Trusted"
    assert failures(png) == ["signingCredential.untrusted"]
    [manifest] = found["manifests"].values()
    [actions] = manifest["assertions"]
    assert actions["data"]["actions"] == [{"action": "c2pa.created", "digitalSourceType": DIGITAL_SOURCE_TYPE}]
    assert manifest["title"] == "class-0.png" and manifest["claim_generator_info"][0]["name"] == "dp-synth"
    signature = manifest["signature_info"]
    assert (signature["alg"], signature["common_name"]) == ("Ed25519", RUN)
    assert "time" not in signature and "thumbnail" not in manifest and "ingredients" not in manifest


def test_certificates_begin_on_the_day_of_the_run_and_each_run_has_its_own() -> None:
    first, second = own(), own()
    assert first.key != second.key and first.certificates != second.certificates and "PRIVATE" not in repr(first)
    leaf, root = x509.load_pem_x509_certificates(first.certificates)
    for certificate in (leaf, root):
        assert certificate.not_valid_before_utc == datetime(2020, 2, 29, tzinfo=UTC)
        assert certificate.not_valid_after_utc.year == 9999
    leaf.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    assert leaf.subject != leaf.issuer


def test_a_changed_pixel_shows_and_a_borrowed_manifest_too(
    tmp_path: Path, image_schema: Callable[..., ImageSchema]
) -> None:
    gaussians = ClassGaussians(np.ones((3, 2)), np.stack([np.eye(2)] * 3), np.ones(3))
    model = model_of(image_schema(), gaussians, rows=9)
    sheets = [sheet.file for sheet in picture_sheets(model, tmp_path, np.random.default_rng(0), own())]
    assert check_credentials(tmp_path) == len(sheets) == 8
    first, second = (tmp_path / file for file in sheets[:2])
    whole, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(with_another_pixel(whole))
    assert failures(first.read_bytes()) == ["signingCredential.untrusted", "assertion.dataHash.mismatch"]
    with pytest.raises(VerificationFailed, match=rf"^{sheets[0]}: its content credentials .*dataHash\.mismatch$"):
        check_credentials(tmp_path)
    borrowed = next(data for kind, data in chunks(other) if kind == b"caBX")
    first.write_bytes(joined([(kind, borrowed if kind == b"caBX" else data) for kind, data in chunks(whole)]))
    with pytest.raises(VerificationFailed, match=r"dataHash\.mismatch"):
        check_credentials(tmp_path)
    first.write_bytes(joined([(kind, data[:90] if kind == b"caBX" else data) for kind, data in chunks(whole)]))
    with pytest.raises(VerificationFailed, match="no readable manifest"):
        check_credentials(tmp_path)
    first.write_bytes(joined([(kind, data) for kind, data in chunks(whole) if kind != b"caBX"]))
    assert check_credentials(tmp_path) == 7  # that one is gone is told by the bundle's own manifest


Certified = Callable[..., ContentCredentials]


@pytest.fixture
def certified(tmp_path: Path) -> Certified:
    """A steward's files: an authority of P-256, and a signer it has certified from a day on for so many days."""

    def build(start: int = -1, days: int = 2, *, password: bytes | None = None, other: bool = False) -> Any:
        authority, signer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        names = [x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)]) for name in ("above", "a clinic")]
        chain, begins = b"", datetime.now(UTC) + timedelta(days=start)
        for name, key, is_authority in ((names[1], signer, False), (names[0], authority, True)):
            usage = dict.fromkeys(
                ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
            ) | {"encipher_only": False, "decipher_only": False, "crl_sign": is_authority}
            usage |= {"digital_signature": not is_authority, "key_cert_sign": is_authority}
            serial, ends = x509.random_serial_number(), begins + timedelta(days=days)
            chain += (
                x509.CertificateBuilder(names[0], name, key.public_key(), serial, begins, ends)
                .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
                .add_extension(x509.KeyUsage(**usage), critical=True)
                .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
                .add_extension(
                    x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
                )
                .sign(authority, hashes.SHA256())
                .public_bytes(Encoding.PEM)
            )
        how = BestAvailableEncryption(password) if password else NoEncryption()
        kept = ec.generate_private_key(ec.SECP256R1()) if other else signer
        (tmp_path / "chain.pem").write_bytes(chain)
        (tmp_path / "key.pem").write_bytes(kept.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
        (tmp_path / "key.pem").chmod(0o600)
        return ContentCredentials(certificates=tmp_path / "chain.pem", key=tmp_path / "key.pem")

    return build


def test_a_stewards_own_certificate(certified: Certified) -> None:
    found = credentials_for(certified(), run_id=RUN, created=DAY)
    assert found is not None and (found.whose, found.algorithm) == ("steward", "es256")
    png = found.signed(write_png(PIXELS, 8), title="class-0.png")
    assert failures(png) == ["signingCredential.untrusted"]
    [manifest] = told(png)["manifests"].values()
    assert manifest["signature_info"]["issuer"] == "a clinic"


def test_one_that_is_no_good_is_refused_in_one_line(
    certified: Certified, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def words(asked: ContentCredentials) -> str:
        with pytest.raises(UserError) as refused:
            of_steward(asked)
        assert "\n" not in str(refused.value) and "PRIVATE" not in str(refused.value)
        return str(refused.value)

    assert "is not valid to C2PA" in words(certified(start=-9))  # expired
    assert "is not valid to C2PA" in words(certified(other=True))  # another key's
    assert "is protected by a password" in words(certified(password=b"secret"))
    asked = certified()
    (tmp_path / "key.pem").chmod(0o644)
    assert "others may read or change this key" in words(asked)
    (tmp_path / "key.pem").chmod(0o600)
    (tmp_path / "key.pem").write_text("no key")
    assert "is not a private key in PEM" in words(asked)
    asked = certified()
    (tmp_path / "chain.pem").write_text("no certificate")
    assert "is not valid to C2PA (no signature)" in words(asked)
    (tmp_path / "chain.pem").unlink()
    assert "chain.pem: No such file" in words(asked)
    monkeypatch.setattr(reading, "PACKAGE", "no_such_package")
    assert "install dp-synth[c2pa], or leave it out" in words(asked)


def test_without_the_extra_nothing_is_signed_and_nothing_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "class-0.png").write_bytes(write_png(PIXELS, 8))
    assert check_credentials(tmp_path) == 0
    (tmp_path / "pictures" / "class-1.png").write_bytes(own().signed(write_png(PIXELS, 8), title="class-1.png"))
    assert check_credentials(tmp_path) == 1
    monkeypatch.setattr(reading, "PACKAGE", "no_such_package")
    assert credentials_for(None, run_id=RUN, created=DAY) is None
    assert check_credentials(tmp_path) is None


@pytest.mark.parametrize(
    ("against", "intact"),
    [
        (["signingCredential.untrusted", "signingCredential.expired"], True),
        (["claimSignature.outsideValidity"], True),
        (["signingCredential.expired", "claimSignature.mismatch"], False),
        (["assertion.hashedURI.mismatch"], False),
    ],
)
def test_a_certificate_that_has_expired_since_leaves_the_bundle_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, against: list[str], intact: bool
) -> None:
    """Who signed is a validator's to judge; a bundle is verified for as long as it is kept."""
    monkeypatch.setattr(reading, "failures", lambda png: against)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "class-0.png").write_bytes(own().signed(write_png(PIXELS, 8), title="class-0.png"))
    if intact:
        assert check_credentials(tmp_path) == 1
    else:
        with pytest.raises(VerificationFailed, match=against[-1]):
            check_credentials(tmp_path)
