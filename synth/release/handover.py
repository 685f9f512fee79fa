"""Hand an approved bundle over: a copy of exactly the approved bytes, verified where it lies before it appears."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from synth.errors import NotApproved, UserError, VerificationFailed
from synth.files import PRIVATE_FILE, PRIVATE_FOLDER
from synth.release.manifest import files_of
from synth.release.seal import publish
from synth.release.verify import Verified, demand_key, examine, in_words


def hand_over(
    bundle: Path, destination: Path, *, keys: Sequence[Path] = (), revocations: Sequence[Path] = ()
) -> Verified:
    """Copy an approved bundle to a folder that does not exist yet; it appears whole or not at all.

    Args:
        bundle: a bundle that is approved and not revoked.
        destination: the folder to make.
        keys: files of public keys, one of which has to have signed the approval.
        revocations: revocation lists that must not name the bundle.

    Raises:
        NotApproved: it is a candidate, rejected or revoked.
        VerificationFailed: the bundle or its copy is not intact, or is signed by none of the keys.
        UserError: the destination exists, lies inside of the bundle, or cannot be written.
    """
    found = examine(bundle, revocations=revocations)
    _refuse_unless_approved(bundle, found)
    if keys:
        demand_key(bundle, found.key_id, keys)
    if os.path.lexists(destination):
        raise UserError(f"{destination}: exists already; name a folder that does not")
    if destination.resolve().is_relative_to(bundle.resolve()):
        raise UserError(f"{destination}: lies inside of the bundle; name a folder elsewhere")
    aside = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.partial")
    try:
        aside.mkdir(mode=PRIVATE_FOLDER, parents=True)
        _copy(bundle, aside)
        copied = examine(aside, keys=keys, revocations=revocations)
        _refuse_unless_approved(bundle, copied)
        if (copied.manifest, copied.key_id) != (found.manifest, found.key_id):
            raise VerificationFailed(f"{bundle}: was changed while it was copied")
        publish(aside, destination, created=_created(aside))
    except OSError as error:
        raise UserError(f"{destination}: cannot be written ({error.strerror}); name another folder") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return copied


def _refuse_unless_approved(bundle: Path, found: Verified) -> None:
    if not found.approved:
        remedy = "; `synth approve` comes first" if found.state == "candidate" else ""
        raise NotApproved(f"{bundle}: is {in_words(found)}, so it is not released{remedy}")


def _copy(bundle: Path, target: Path) -> None:
    for name in files_of(bundle):
        (target / name).parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        with (bundle / name).open("rb") as source, (target / name).open("xb") as copy:
            os.fchmod(copy.fileno(), PRIVATE_FILE)
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())


def _created(bundle: Path) -> str:
    return str(json.loads((bundle / "privacy.json").read_bytes())["x_synth"]["created"])
