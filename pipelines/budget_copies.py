"""`synth budget verify`, `backup` and `restore`: the ledger against itself, against bundles, and in another place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.budget_ledger import open_ledger
from pipelines.budget_view import print_json
from pipelines.options import AsJson, LedgerUrl
from synth.errors import SynthError, UserError, VerificationFailed
from synth.files import write_whole
from synth.privacy.ledger import Ledger
from synth.release import MANIFEST, Verified, examine


def verify(
    population: Annotated[str | None, typer.Argument(help="Count this population's entries.")] = None,
    bundle: Annotated[
        list[Path] | None, typer.Option("--bundle", metavar="PATH", help="A bundle, or a folder of bundles; repeat.")
    ] = None,
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Check the ledger's hash chain; exit 4 names the first entry that was edited, removed or moved.

    The chain is one for all populations, so all of it is checked. A chain cannot show that its latest
    entries were cut off, or that an old copy was put back. Bundles can: each carries the hash of the entry
    that its run ended with. Name them with --bundle, and exit 4 says which bundle's entry is not there:
    then the ledger was rolled back, or is another one.
    """
    book = open_ledger(ledger)
    count = book.verify_chain()
    checked = _check(book, bundle or [])
    head = book.head()
    named = None if population is None else len(book.history(population))
    if as_json:
        found: dict[str, Any] = {"intact": True, "entries": count, "head": head}
        if population is not None:
            found |= {"population": population, "population_entries": named}
        if bundle:
            found |= {"bundles": [{"bundle": str(path), "run": one.run_id} for path, one in checked.items()]}
        print_json(found)
        return
    if not count:
        typer.echo(f"nothing to verify: no entries in {book.place}")
        return
    of_these = "" if named is None else f" ({named} for {population})"
    typer.echo(f"intact: {_entries(count)}{of_these}, head {head}")
    if bundle:
        typer.echo(f"bundles: {len(checked)}, each with its run's entry in this ledger")


def backup(
    file: Annotated[Path, typer.Argument(help="The JSON file to write; it must not exist.")],
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Write the whole ledger to a file, as canonical JSON with its hash chain, verified first.

    Keep it as private as the ledger. `synth budget restore` puts it into an empty ledger, also of the other
    kind: that is how a ledger moves from SQLite to PostgreSQL or back.
    """
    if file.exists():
        raise UserError(f"{file}: exists already; name another file")
    book = open_ledger(ledger)
    content = book.backup()
    count, head = book.verify_chain(), book.head()
    if not count:
        raise UserError(f"ledger {book.place}: has no entries to back up; name the one that is in use")
    try:
        write_whole(file, content)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; name a file that you may write") from None
    if as_json:
        print_json({"file": str(file.resolve()), "entries": count, "head": head})
    else:
        typer.echo(f"{file}: {_entries(count)}, head {head}")


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `synth budget backup` wrote.")],
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup into an empty ledger, entry by entry as it was, or not at all.

    A backup that was changed is refused (exit 4), and so is a ledger that has entries (exit 2). What was
    spent after the backup was made is not in it: check it with `synth budget verify --bundle`, and see that
    nobody goes on with the old ledger.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; name a file that `synth budget backup` wrote") from None
    book = open_ledger(ledger, create=True)
    count = book.restore(content)
    if as_json:
        print_json({"entries": count, "head": book.head()})
    else:
        typer.echo(f"restored: {_entries(count)}, head {book.head()}")


def _check(book: Ledger, paths: list[Path]) -> dict[Path, Verified]:
    """Verify every bundle and look its entry up. Raises VerificationFailed naming the first that does not fit."""
    checked = {}
    for path in [found for named in paths for found in _bundles_at(named)]:
        try:
            checked[path] = examine(path, ledger=book)  # a rejected bundle is charged too
        except VerificationFailed as error:
            raise VerificationFailed(str(error) if str(path) in str(error) else f"{path}: {error}") from None
        except SynthError as error:
            raise type(error)(f"{path}: {error}") from None
    return checked


def _bundles_at(path: Path) -> list[Path]:
    """The bundle that the path is, or all that lie below it."""
    found = [path] if (path / MANIFEST).is_file() else sorted(below.parent for below in path.rglob(MANIFEST))
    if not found:
        raise UserError(f"{path}: no bundle there; name a bundle folder, or a folder that holds some")
    return found


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"
