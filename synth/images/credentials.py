"""Content credentials (C2PA 2) of contact sheets: a signed manifest in the PNG that says a trained model has made it.

Whoever opens a sheet elsewhere, in any C2PA reader, learns that it is synthetic and whether a pixel was changed since.
It is signed with a key made for the run, under a certificate authority made for the run, and neither is kept: it tells
nothing about who signed, and readers say so ("untrusted"). A steward's own certificate tells that too. What a bundle's
approval binds are the sheets' bytes, credentials included.

Nothing goes over the network: no time-stamping authority is asked, and neither manifests nor revocations are fetched. A
manifest holds no time; the run's own certificates begin on the day of the run, which is public, and have no end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from io import BytesIO

import numpy as np
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from synth.config import ContentCredentials
from synth.errors import SynthError, UserError
from synth.images.png import write_png
from synth.parquet import DIGITAL_SOURCE_TYPE
from synth.release.credentials import EXTRA, PNG, SETTINGS, available, failures
from synth.release.keys import read_private

NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""Of a certificate that has none (RFC 5280, 4.1.2.5)."""
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class Credentials:
    """What signs: certificates in PEM, the signer's first, and its private key in PEM.

    Attributes:
        algorithm: as COSE and C2PA name it, in lower case.
        whose: the run's own, or the steward's.
    """

    certificates: bytes
    key: bytes = field(repr=False)
    algorithm: str
    whose: str

    def signed(self, png: bytes, *, title: str) -> bytes:
        """The same PNG with a manifest: created by a trained model, by this software. Raises SynthError."""
        import c2pa  # an extra

        created = {"action": "c2pa.created", "digitalSourceType": DIGITAL_SOURCE_TYPE}
        manifest = {
            "title": title,
            "format": PNG,
            "claim_generator_info": [{"name": "dp-synth", "version": metadata.version("dp-synth")}],
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
        }
        info = c2pa.C2paSignerInfo(self.algorithm.encode(), self.certificates, self.key, None)
        out = BytesIO()
        try:
            with (
                c2pa.Context.from_dict(dict(SETTINGS)) as context,
                c2pa.Signer.from_info(info) as signer,
                c2pa.Builder(manifest, context=context) as builder,
            ):
                builder.sign(signer, PNG, BytesIO(png), out)
        except c2pa.C2paError as error:
            raise SynthError(f"content credentials (C2PA): a sheet cannot be signed: {error}") from None
        return out.getvalue()


def credentials_for(asked: ContentCredentials | None, *, run_id: str, created: str) -> Credentials | None:
    """The steward's, where they name some, else new ones of the run's own; None where the extra is not installed.

    Args:
        asked: output.c2pa of run.yaml.
        run_id: the run's id.
        created: when it started, ISO 8601: its day is the first of the certificates.
    """
    if asked is not None:
        return of_steward(asked)
    return of_run(run_id, datetime.fromisoformat(created)) if available() else None


def of_run(run_id: str, created: datetime) -> Credentials:
    """A key made for one run, certified by an authority made for it, whose key is forgotten here."""
    authority, signer = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    above, name = _named("certificate authority of one run"), _named(run_id)
    day = created.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    leaf, root = (
        _certificate(name, signer, above, authority, day),
        _certificate(above, authority, above, authority, day),
    )
    return Credentials(
        certificates=leaf.public_bytes(Encoding.PEM) + root.public_bytes(Encoding.PEM),
        key=signer.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        algorithm="ed25519",
        whose="run",
    )


def of_steward(asked: ContentCredentials) -> Credentials:
    """A steward's certificates and key. Raises UserError, quoting neither, unless they make a valid manifest."""
    if not available():
        raise UserError(f"output.c2pa: wants the extra c2pa; install {EXTRA}, or leave it out")
    try:
        certificates = asked.certificates.read_bytes()
    except OSError as error:
        raise UserError(f"output.c2pa.certificates {asked.certificates}: {error.strerror}") from None
    try:
        key = load_pem_private_key(read_private(asked.key), None)
    except TypeError:
        raise UserError(f"output.c2pa.key {asked.key}: is protected by a password; name one that is not") from None
    except (ValueError, UnsupportedAlgorithm):
        raise UserError(f"output.c2pa.key {asked.key}: is not a private key in PEM") from None
    if isinstance(key, Ed25519PrivateKey):
        algorithm = "ed25519"
    elif isinstance(key, RSAPrivateKey):
        algorithm = "ps256"
    elif isinstance(key, EllipticCurvePrivateKey) and key.curve.name in CURVES:
        algorithm = CURVES[key.curve.name]
    else:
        raise UserError(f"output.c2pa.key {asked.key}: should be of Ed25519, of a curve of NIST's, or RSA")
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    found = Credentials(certificates, plain, algorithm, "steward")
    problem = f"output.c2pa.certificates {asked.certificates}: a picture signed with them is not valid to C2PA"
    try:
        codes = failures(found.signed(write_png(np.zeros((8, 8, 1), dtype=np.uint16), 8), title="trial"))
    except SynthError:
        codes = ["no signature"]
    if wrong := [code for code in codes if code != "signingCredential.untrusted"]:
        remedy = "they should be the signer's, of that key and within its dates, then those above it, in PEM"
        raise UserError(f"{problem} ({', '.join(wrong)}); {remedy}")
    return found


def _named(name: str) -> x509.Name:
    unit = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "dp-synth, a key of one run")
    return x509.Name([unit, x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])  # its most, by RFC 5280


def _certificate(
    name: x509.Name, key: Ed25519PrivateKey, above: x509.Name, authority: Ed25519PrivateKey, start: datetime
) -> x509.Certificate:
    """A certificate as C2PA 2.1, 14.5, asks: an authority's where it is its own, else a signer's."""
    is_authority, public = name == above, key.public_key()
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    usage |= {"digital_signature": not is_authority, "key_cert_sign": is_authority, "crl_sign": is_authority}
    made = (
        x509.CertificateBuilder(above, name, public, x509.random_serial_number(), start, NO_END)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )
    if not is_authority:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return made.sign(authority, None)
