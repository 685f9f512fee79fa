"""The manifest: the SHA-256 of every file of a bundle, and the check that the files are those and no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from synth.errors import UserError, VerificationFailed
from synth.files import canonical_json, sha256_file, write_whole

MANIFEST = "manifest.json"
ATTESTATION = "attestation.json"
MANIFEST_FORMAT = "dp-synth-manifest/1"
REQUIRED = (
    "croissant.json",
    "datasheet.html",
    "datasheet.json",
    "datasheet.md",
    "dictionary.md",
    "model/config.json",
    "model/generator.safetensors",
    "privacy.json",
    "quality.html",
    "quality.json",
    "schema.yaml",
)


def write_manifest(bundle: Path) -> None:
    """List every file of a finished draft."""
    files = {name: sha256_file(bundle / name) for name in files_of(bundle) if name not in {MANIFEST, ATTESTATION}}
    write_whole(bundle / MANIFEST, canonical_json({"format": MANIFEST_FORMAT, "files": files}))


def listed_files(bundle: Path) -> dict[str, str]:
    """File name → SHA-256, as the manifest says. Raises VerificationFailed, or UserError without any bundle."""
    if not bundle.is_dir():
        raise UserError(f"{bundle}: no such folder; name a bundle folder (the last line that `synth run` printed)")
    if not (bundle / MANIFEST).is_file():
        inside = next(iter(sorted(bundle.glob(f"bundle/{MANIFEST}"))), None)
        where = f"; its bundle is {inside.parent}" if inside else ""
        raise VerificationFailed(f"{bundle}: has no {MANIFEST}; this is not a finished bundle{where}")
    manifest = canonical_object((bundle / MANIFEST).read_bytes(), {"format", "files"}, MANIFEST)
    listed = manifest["files"]
    if manifest["format"] != MANIFEST_FORMAT or not isinstance(listed, dict):
        raise VerificationFailed(f"{MANIFEST}: not of format {MANIFEST_FORMAT}")
    missing = [name for name in REQUIRED if name not in listed]
    if missing or not any(name.startswith("data/part-") for name in listed):
        raise VerificationFailed(f"{MANIFEST}: does not list {', '.join(missing) or 'any data file'}")
    return listed


def check_files(bundle: Path) -> int:
    """How many files the manifest lists, each there and unchanged, and nothing beside them.

    Raises VerificationFailed naming the first that is not, or UserError when there is no bundle at all.
    """
    listed = listed_files(bundle)
    present = set(files_of(bundle)) - {MANIFEST, ATTESTATION}
    for name in sorted(present | set(listed)):
        if name not in listed:
            raise VerificationFailed(f"{name}: is in the bundle and not in the manifest")
        if name not in present:
            raise VerificationFailed(f"{name}: is in the manifest and not in the bundle")
        if sha256_file(bundle / name) != listed[name]:
            raise VerificationFailed(f"{name}: has been changed since the bundle was sealed")
    return len(listed)


def files_of(bundle: Path) -> list[str]:
    """Names of all files below the bundle; links, empty folders and other oddities are refused."""
    names = []
    for path in sorted(bundle.rglob("*")):
        name = path.relative_to(bundle).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise VerificationFailed(f"{name}: is neither a file nor a folder")
        if path.is_file():
            names.append(name)
        elif next(path.iterdir(), None) is None:
            raise VerificationFailed(f"{name}: is an empty folder, which no bundle has")
    return names


def canonical_object(content: bytes, keys: set[str], name: str) -> dict[str, Any]:
    """A JSON object with exactly these keys in its one encoding (RFC 8785), so that no key stands there twice."""
    try:
        value = json.loads(content)
        same = canonical_json(value) == content
    except (ValueError, RecursionError):
        same, value = False, None
    if not same or not isinstance(value, dict):
        raise VerificationFailed(f"{name}: is not canonical JSON")
    if set(value) != keys:
        raise VerificationFailed(f"{name}: has unknown or missing keys")
    return value
