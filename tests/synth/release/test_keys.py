"""Keys: made once, read with care, named by their fingerprint, never shown."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from synth.errors import UserError
from synth.release import KEY_VARIABLE, PublicKey, SigningKey, new_key, public_keys, signing_key

# RFC 8032, section 7.1, tests 1 and 2: secret key, public key, message, signature
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe2465"
        "5141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb0"
        "0d291612bb0c00",
    ),
]
ORDER = 2**252 + 27742317777372353535851937790883648493  # of the curve's base point
DER_PREFIX = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: SubjectPublicKeyInfo of ed25519


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_vectors_of_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    key = SigningKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    der = DER_PREFIX + bytes.fromhex(public)
    assert key.public == PublicKey.from_der(der)
    assert key.public.key_id == hashlib.sha256(der).hexdigest()
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert key.public.verifies(bytes.fromhex(signature), bytes.fromhex(message))
    assert not key.public.verifies(bytes.fromhex(signature), b"another message")


def test_a_signature_has_one_form() -> None:
    _, public, message, signature = RFC_8032[1]
    key, whole = PublicKey.from_der(DER_PREFIX + bytes.fromhex(public)), bytes.fromhex(signature)
    other = whole[:32] + (int.from_bytes(whole[32:], "little") + ORDER).to_bytes(32, "little")
    assert key.verifies(whole, bytes.fromhex(message))
    assert not key.verifies(other, bytes.fromhex(message))  # equal modulo the order, refused by RFC 8032, 5.1.7
    assert not any(key.verifies(wrong, bytes.fromhex(message)) for wrong in (b"", whole[:-1], whole + b"\0"))


def test_the_same_file_signs_and_verifies(tmp_path: Path) -> None:
    public = new_key(tmp_path / "k")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("k", "k.pub")] == [0o600, 0o600]
    assert public_keys([tmp_path / "k.pub"]) == (public,)
    key = signing_key(tmp_path / "k", {})
    assert key.public == public and public.verifies(key.sign(b"x"), b"x")
    assert new_key(tmp_path / "other") != public


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "b.pub").write_text("mine")
    (tmp_path / "c").symlink_to(tmp_path / "nowhere")
    new_key(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()
    for name in ("a", "b", "c"):
        with pytest.raises(UserError, match="never overwritten"):
            new_key(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == before and (tmp_path / "b.pub").read_text() == "mine"
    with pytest.raises(UserError, match="its folder does not exist"):
        new_key(tmp_path / "nowhere" / "k")


def test_a_password(tmp_path: Path) -> None:
    public = new_key(tmp_path / "k", password=b"correct horse")
    assert b"ENCRYPTED" in (tmp_path / "k").read_bytes()
    assert signing_key(tmp_path / "k", {}, password=b"correct horse").public == public
    with pytest.raises(UserError, match="wrong password"):
        signing_key(tmp_path / "k", {}, password=b"battery staple")
    with pytest.raises(UserError, match="--password-env"):
        signing_key(tmp_path / "k", {})
    new_key(tmp_path / "open")
    with pytest.raises(UserError, match="leave out --password-env"):
        signing_key(tmp_path / "open", {}, password=b"x")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_may_touch(tmp_path: Path, mode: int) -> None:
    new_key(tmp_path / "k")
    (tmp_path / "link").symlink_to(tmp_path / "k")
    (tmp_path / "k").chmod(mode)
    for name in ("k", "link"):
        with pytest.raises(UserError, match="chmod 600"):
            signing_key(tmp_path / name, {})


def test_a_key_in_the_environment(tmp_path: Path) -> None:
    public = new_key(tmp_path / "k")
    pem = (tmp_path / "k").read_text()
    assert signing_key(None, {KEY_VARIABLE: pem}).public == public
    assert signing_key(tmp_path / "k", {KEY_VARIABLE: "broken"}).public == public  # the file goes first
    with pytest.raises(UserError, match="no key to sign with"):
        signing_key(None, {KEY_VARIABLE: ""})


def broken_keys() -> dict[str, bytes]:
    elliptic = ec.generate_private_key(ec.SECP256R1())
    return {
        "no key": b"hello",
        "nothing": b"",
        "half a key": ed25519_pem()[:60],
        "another kind": elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    }


def ed25519_pem() -> bytes:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("kind", broken_keys())
def test_what_is_no_key_is_never_quoted(tmp_path: Path, kind: str) -> None:
    content = broken_keys()[kind]
    (tmp_path / "k").write_bytes(content)
    (tmp_path / "k").chmod(0o600)
    secret = content.decode().splitlines()[1:2] or ["hello"]
    for file, environment in ((tmp_path / "k", {}), (None, {KEY_VARIABLE: content.decode() or "hello"})):
        with pytest.raises(UserError) as caught:
            signing_key(file, environment)
        assert "key" in str(caught.value) and secret[0] not in str(caught.value)


def test_a_signing_key_does_not_show_itself() -> None:
    assert repr(SigningKey(ed25519.Ed25519PrivateKey.generate())) == "SigningKey()"


@pytest.mark.parametrize("name", ["a folder", "nothing", "k"])
def test_a_file_that_is_no_private_key(tmp_path: Path, name: str) -> None:
    (tmp_path / "a folder").mkdir(mode=0o700)
    new_key(tmp_path / "k")
    path = tmp_path / name if name != "k" else tmp_path / "k.pub"
    with pytest.raises(UserError):
        signing_key(path, {})


def test_several_public_keys_in_one_file(tmp_path: Path) -> None:
    made = [new_key(tmp_path / name) for name in ("old", "new")]
    both = tmp_path / "team.pub"
    both.write_bytes(b"our keys\n" + b"\n".join((tmp_path / f"{name}.pub").read_bytes() for name in ("old", "new")))
    assert public_keys([both]) == tuple(made)
    assert public_keys([both, tmp_path / "old.pub"]) == tuple(made)


def test_what_is_no_public_key(tmp_path: Path) -> None:
    elliptic: Any = ec.generate_private_key(ec.SECP256R1()).public_key()
    new_key(tmp_path / "k")
    contents = {
        "text": b"hello",
        "private": (tmp_path / "k").read_bytes(),
        "another kind": elliptic.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "broken": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="public key"):
            public_keys([tmp_path / name])
    with pytest.raises(UserError, match="No such file"):
        public_keys([tmp_path / "nowhere"])


def test_der_has_one_form() -> None:
    der = DER_PREFIX + bytes.fromhex(RFC_8032[0][1])
    assert PublicKey.from_der(der).der == der
    for other in (b"", der[:-1], der + b"\0", b"\x30\x2b" + der[2:]):
        with pytest.raises(ValueError):
            PublicKey.from_der(other)
