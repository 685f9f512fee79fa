"""Ed25519 keys of stewards: making, reading and naming them.

A key's id is the SHA-256, in lower-case hex, of its public half as DER SubjectPublicKeyInfo (RFC 8410):
`openssl pkey -pubin -in FILE.pub -outform DER | sha256sum` prints the same. A private key never leaves this module
but as an object that signs: no text, error or log quotes it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from synth.errors import UserError
from synth.files import write_new

KEY_VARIABLE = "SYNTH_KEY"
"""Environment variable that may hold a private key in PEM instead of a file."""

_PUBLIC_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class PublicKey:
    """The half that anyone may have. `der` is its SubjectPublicKeyInfo, 44 bytes."""

    der: bytes

    @property
    def key_id(self) -> str:
        """SHA-256 of `der` in lower-case hex."""
        return hashlib.sha256(self.der).hexdigest()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made that signature (RFC 8032, without prehashing)."""
        try:
            _ed25519(self.der).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    @staticmethod
    def from_der(der: bytes) -> PublicKey:
        """A key from its one DER encoding. Raises ValueError for any other bytes or kind of key."""
        if _der_of(_ed25519(der)) != der:
            raise ValueError("not the canonical encoding of an ed25519 public key")
        return PublicKey(der)


@dataclass(frozen=True)
class SigningKey:
    """A private key in use."""

    private: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """Its public half."""
        return PublicKey(_der_of(self.private.public_key()))

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes; the same message gives the same one."""
        return self.private.sign(message)


def new_key(file: Path, *, password: bytes | None = None) -> PublicKey:
    """Write a new private key to `file` (PKCS 8 in PEM, 0600) and its public half to `file`.pub.

    Args:
        file: where the private key goes; neither it nor its .pub may exist, nothing is overwritten.
        password: encrypts the private key, when given.
    """
    beside = file.with_name(f"{file.name}.pub")
    for path in (file, beside):
        if os.path.lexists(path):
            raise UserError(f"{path}: exists already, and a key is never overwritten; name another file")
    if not file.parent.is_dir():
        raise UserError(f"{file}: its folder does not exist; make it first")
    key = Ed25519PrivateKey.generate()
    how = NoEncryption() if password is None else BestAvailableEncryption(password)
    public = key.public_key()
    try:
        write_new(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
        write_new(beside, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror}); name another file") from None
    return PublicKey(_der_of(public))


def signing_key(file: Path | None, environment: Mapping[str, str], *, password: bytes | None = None) -> SigningKey:
    """The private key in `file`, else in the environment's `SYNTH_KEY`. Raises UserError, quoting neither."""
    if file is not None:
        return _parse_private(read_private(file), str(file), password)
    if not (pem := environment.get(KEY_VARIABLE)):
        raise UserError(
            f"no key to sign with; name its file with --key, or put the key itself (PEM) into ${KEY_VARIABLE}"
        )
    return _parse_private(pem.encode(errors="replace"), f"${KEY_VARIABLE}", password)


def public_keys(files: Sequence[Path]) -> tuple[PublicKey, ...]:
    """Every public key in these files; a file may hold several PEM blocks, old and new keys of a steward."""
    found: dict[str, PublicKey] = {}
    for file in files:
        try:
            blocks = _PUBLIC_BLOCK.findall(file.read_bytes())
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}; name a file that holds public keys") from None
        if not blocks:
            raise UserError(f"{file}: holds no public key in PEM; `synth key new FILE` writes one to FILE.pub")
        for block in blocks:
            try:
                key = load_pem_public_key(block)
            except (ValueError, UnsupportedAlgorithm):
                key = None
            if not isinstance(key, Ed25519PublicKey):
                raise UserError(f"{file}: holds a block that is not an ed25519 public key; take it out")
            one = PublicKey(_der_of(key))
            found[one.key_id] = one
    return tuple(found.values())


def read_private(file: Path) -> bytes:
    """The content of a file with a private key. Raises UserError for one that others may read or change."""
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{file}: is not a file; name the file that holds the private key")
            if status.st_mode & _OTHERS:
                raise UserError(
                    f"{file}: others may read or change this key; run `chmod 600 {file}`, or make a new key"
                )
            return stream.read()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; name the file that holds the private key") from None


def _parse_private(pem: bytes, place: str, password: bytes | None) -> SigningKey:
    try:
        key = load_pem_private_key(pem, password)
    except TypeError:
        if password is None:
            remedy = "is protected by a password; name the environment variable that holds it with --password-env"
        else:
            remedy = "has no password; leave out --password-env"
        raise UserError(f"{place}: {remedy}") from None
    except (ValueError, UnsupportedAlgorithm):
        wrong = "wrong password, or not a private key" if password is not None else "is not a private key"
        raise UserError(f"{place}: {wrong} in PEM; `synth key new FILE` makes one") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{place}: is not an ed25519 key; `synth key new FILE` makes one")
    return SigningKey(key)


def _ed25519(der: bytes) -> Ed25519PublicKey:
    try:
        key = load_der_public_key(der)
    except UnsupportedAlgorithm:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an ed25519 public key")
    return key


def _der_of(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
