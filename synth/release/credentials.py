"""Content credentials (C2PA) of a bundle's pictures, read again. `synth.images.credentials` writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from synth.errors import VerificationFailed

PACKAGE, EXTRA, PNG = "c2pa", "dp-synth[c2pa]", "image/png"
CHUNK = b"caBX"
"""Where a PNG keeps its manifest (C2PA 2.1, A.3.3)."""
SETTINGS: Mapping[str, Any] = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}
ABOUT_SIGNERS = ("signingCredential.", "claimSignature.outsideValidity")
"""What a validator says of a certificate (nobody it trusts, expired), and not of the file."""


def available() -> bool:
    """Whether sheets can have content credentials here: whether the extra is installed."""
    return find_spec(PACKAGE) is not None


def failures(png: bytes) -> list[str]:
    """What a C2PA validator has against a picture with a manifest, by C2PA's own codes."""
    import c2pa

    try:
        with c2pa.Context.from_dict(dict(SETTINGS)) as context, c2pa.Reader(PNG, BytesIO(png), context=context) as read:
            found = json.loads(read.json()).get("validation_results", {})
    except c2pa.C2paError:
        return ["no readable manifest"]
    return [str(status["code"]) for status in found.get("activeManifest", {}).get("failure", [])]


def check_credentials(bundle: Path) -> int | None:
    """How many pictures of a bundle have content credentials, all of which are of these very pictures.

    Who signed is not looked at, nor whether a certificate has expired. None where there are some and the extra that
    reads them is not installed. Raises VerificationFailed.
    """
    found = {path: path.read_bytes() for path in sorted(bundle.glob("pictures/*.png"))}
    if not found:
        return 0
    from synth.images.png import has_chunk  # and Arrow, which a table's bundle is verified without

    marked = {path: content for path, content in found.items() if has_chunk(content, CHUNK)}
    if marked and not available():
        return None
    for path, content in marked.items():
        if wrong := [code for code in failures(content) if not code.startswith(ABOUT_SIGNERS)]:
            name = path.relative_to(bundle).as_posix()
            raise VerificationFailed(f"{name}: its content credentials (C2PA) are not valid: {', '.join(wrong)}")
    return len(marked)
