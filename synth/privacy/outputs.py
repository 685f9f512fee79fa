"""Where what is private may be written: never into a bundle, which is handed out, nor into the draft of one."""

from __future__ import annotations

from pathlib import Path

from synth.errors import UserError

MANIFEST = "manifest.json"
"""A file in every finished bundle."""
DRAFT = "bundle.partial"
"""The name of a bundle's folder while a run writes it; everything in it is sealed and published."""

OF_REAL_ROWS = "bundles are handed out; what is written holds or tells of real rows"
SEALED = "a bundle's manifest lists its files; one more would break it"


def refuse_in_bundle(output: Path, *, named: str, bundle: Path | None = None, because: str = OF_REAL_ROWS) -> None:
    """Raise UserError when `output`, a file or folder to be written, is or lies in any bundle or draft of one.

    Args:
        output: a path that need not exist; links and `..` are followed.
        named: how the user named it, for the message.
        bundle: a folder that is taken for a bundle whatever it holds.
        because: why not, for the message.
    """
    # Both, because a file is put in place by a rename, which replaces a link instead of following it.
    for path in (output.resolve(), output.parent.resolve() / output.name):
        for folder in (path, *path.parents):
            inside = bundle is not None and folder == bundle.resolve()
            if inside or folder.name == DRAFT or (folder / MANIFEST).exists():
                raise UserError(
                    f"{named}: lies in a bundle, or where one is being made; {because}, so name a place outside of it"
                )
