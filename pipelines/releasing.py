"""`synth key`, `document`, `approve`, `reject`, `release`, `revoke` and `verify`: what becomes of a candidate."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from pipelines.budget_ledger import ledger_of, open_ledger
from pipelines.options import AsJson
from synth.errors import SynthError, UserError, VerificationFailed
from synth.privacy.ledger import Ledger
from synth.release import (
    LIST_FILE,
    SigningKey,
    Verified,
    Word,
    answered_for_section,
    decide,
    examine,
    hand_over,
    in_words,
    new_key,
    signing_key,
)
from synth.release import revoke as revoke_bundle
from synth.release import verify as verify_bundle
from synth.release.attestation import claims_of
from synth.run_folder import RunFolder

LIST_VARIABLE = "SYNTH_REVOCATIONS"

Bundle = Annotated[Path, typer.Argument(help="A bundle folder.", show_default=False)]
By = Annotated[str, typer.Option("--by", help="Who decides: a name that readers will know.", show_default=False)]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key", help="File of the private key. Default: the key itself (PEM) in $SYNTH_KEY."),
]
PasswordEnv = Annotated[
    str | None, typer.Option("--password-env", metavar="NAME", help="Environment variable with the key's password.")
]
PublicKeys = Annotated[
    list[Path] | None,
    typer.Option("--public-key", metavar="FILE", help="Demand a valid signature by a key in this file; repeat."),
]
RevocationList = Annotated[
    Path | None,
    typer.Option("--revocations", metavar="FILE", help="A revocation list, beside your own and the bundle's."),
]
PublicScoresOnly = Annotated[
    bool,
    typer.Option("--public-scores-only", help="Declare that the decision used public scores only, nothing internal."),
]
LedgerUrl = Annotated[
    str | None,
    typer.Option("--ledger", metavar="URL", help="The ledger that counts the population's candidates by now."),
]

key = typer.Typer(name="key", help="Keys to sign decisions with.", no_args_is_help=True, rich_markup_mode=None)


@key.command("new")
def key_new(
    file: Annotated[Path, typer.Argument(help="File to write the private key to.", show_default=False)],
    password_env: PasswordEnv = None,
) -> None:
    """Make an ed25519 key: the private half in FILE, the public half in FILE.pub. Prints the key's id.

    Nothing is overwritten. The id is the SHA-256 of the public half (DER): tell it to your analysts, and give them
    FILE.pub. Keep FILE to yourself; whoever has it can approve in your name. To change keys, make a new one and give
    out both public halves: what the old key signed keeps verifying under the old half.
    """
    public = new_key(file, password=_password(password_env))
    typer.echo(f"private key: {file} (keep it to yourself); public key: {file}.pub; its id:", err=True)
    typer.echo(public.key_id)


def document(
    bundle: Bundle,
    answers: Annotated[Path, typer.Option("--answers", help="The answers.yaml to use.", show_default=False)],
) -> None:
    """Write a candidate's datasheet again with other answers. Costs no budget and opens no private row.

    Only before a decision: an approval is about exact bytes.
    """
    from pipelines.documents import document_again

    still = document_again(bundle, answers, revocations=lists_to_read(bundle, None))
    typer.echo(
        f"without an answer: {', '.join(still)}" if still else "every question that an approval wants is answered",
        err=True,
    )
    _tell_sections(answered_for_section(bundle))
    typer.echo(bundle.resolve())


def approve(
    bundle: Bundle,
    by: By,
    key: KeyFile = None,
    public_scores_only: PublicScoresOnly = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, in one line.")] = None,
    password_env: PasswordEnv = None,
    ledger: LedgerUrl = None,
    revocations: RevocationList = None,
) -> None:
    """Approve a candidate: sign, into its attestation, that these exact bytes may be handed out.

    The bundle is verified first, and every question of its datasheet has to have an answer, its own or, where the
    datasheet says so, its section's. A decision taken after
    reading the internal report is a choice made on private data, so the statement lists "the decision to release"
    as unprotected; --public-scores-only declares that nothing internal was used.
    """
    word = Word(state="approved", by=by, reason=reason, public_scores_only=public_scores_only)
    _decide(bundle, word, _signing_key(key, password_env), ledger, revocations)


def reject(
    bundle: Bundle,
    by: By,
    key: KeyFile = None,
    public_scores_only: PublicScoresOnly = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, in one line. It is part of the bundle.")] = None,
    password_env: PasswordEnv = None,
    ledger: LedgerUrl = None,
    revocations: RevocationList = None,
) -> None:
    """Reject a candidate for good, signed. It is never released, and what it cost stays charged."""
    word = Word(state="rejected", by=by, reason=reason, public_scores_only=public_scores_only)
    _decide(bundle, word, _signing_key(key, password_env), ledger, revocations)


def release(
    bundle: Bundle,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to make.", show_default=False)],
    public_key: PublicKeys = None,
    revocations: RevocationList = None,
) -> None:
    """Copy an approved bundle, exactly the approved bytes, to a folder that does not exist yet.

    The copy is verified before it appears. A candidate, a rejected or a revoked bundle is refused (exit 3).
    """
    hand_over(bundle, destination, keys=public_key or [], revocations=lists_to_read(bundle, revocations))
    typer.echo(destination.resolve())


def revoke(
    bundle: Bundle,
    key: KeyFile = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, in one line. It is published.")] = None,
    password_env: PasswordEnv = None,
    revocations: RevocationList = None,
) -> None:
    """Take an approval back: sign it onto your revocation list, and onto the one beside the bundle.

    Copies that were handed out cannot be called back: send the list to whoever has one, or publish it. `synth verify`
    reads the list that --revocations names, your own ($SYNTH_REVOCATIONS, or in your data folder), and
    revocations.json beside the bundle. Budget that was spent stays spent.
    """
    lists = _lists(bundle, revocations)
    entry = revoke_bundle(bundle, _signing_key(key, password_env), lists=lists, reason=reason)
    typer.echo(f"revoked: run {shown(entry.run)} (key {entry.key_id}); on the lists:", err=True)
    for path in lists:
        typer.echo(path)


def verify(
    bundle: Bundle,
    public_key: PublicKeys = None,
    ledger: Annotated[str | None, typer.Option("--ledger", help="Also look the bundle up in this ledger.")] = None,
    revocations: RevocationList = None,
    as_json: AsJson = False,
) -> None:
    """Check that a bundle is intact: every file listed, unchanged, and bound together; and what was decided about it.

    Without a public key this proves integrity, not origin: anyone can make a key and call themselves anything. A
    rejected or revoked bundle fails.
    """
    book = Ledger.open(ledger, create=False) if ledger else None
    found = verify_bundle(bundle, keys=public_key or [], ledger=book, revocations=lists_to_read(bundle, revocations))
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
        return
    looked_up = " Its ledger entry was found." if found.ledger_checked else ""
    typer.echo(
        f"intact, {in_words(found)}: {found.files} files of run {shown(found.run_id)}, "
        f"(ε={found.epsilon:g}, δ={found.delta:g}).{_origin(found)}{looked_up}{_credentials(found)}"
    )


def _credentials(found: Verified) -> str:
    if found.credentials is None:
        return " Content credentials (C2PA) of its pictures were not looked at: they want dp-synth[c2pa]."
    return f" {found.credentials} pictures carry valid content credentials (C2PA)." if found.credentials else ""


def _origin(found: Verified) -> str:
    if not found.approved:
        return ""
    if found.origin_checked:
        return " Signed by a key you named."
    return " This proves integrity, not origin: name the signer's key with --public-key."


def _decide(bundle: Path, word: Word, key: SigningKey, ledger: str | None, revocations: Path | None) -> None:
    examine(bundle)
    book = Ledger.open(ledger_of(ledger, None), create=False) if ledger else _ledger_of_run(bundle)
    count = _candidates_now(bundle, book, demanded=ledger is not None)
    by_section = answered_for_section(bundle) if word.state == "approved" else ()
    found = decide(bundle, replace(word, candidates=count), key, revocations=lists_to_read(bundle, revocations))
    typer.echo(f"run {shown(found.run_id)}: {in_words(found)}")
    _tell_sections(by_section)
    if count is None:
        typer.echo(
            f"note: this run was not found in ledger {book.place}, so the number of candidates is stated as of the "
            "run; --ledger names another",
            err=True,
        )


def _tell_sections(questions: Sequence[str]) -> None:
    """Say how many answers count although they were given for a whole section; the datasheet marks each."""
    if questions:
        counts = Counter(shown(question).partition(".")[0] for question in questions)
        found = ", ".join(f"{section} ({count})" for section, count in counts.items())
        typer.echo(f"questions answered by a text for their section: {found}", err=True)


def _candidates_now(bundle: Path, book: Ledger, *, demanded: bool) -> int | None:
    """How many candidates the population has had by now; None where the ledger does not know the run.

    Raises VerificationFailed for that when this very ledger was demanded.
    """
    claims = claims_of(bundle)
    try:
        account = book.population(claims.population)
        if account is not None and book.settled_at(claims.ledger_head, population=claims.population, run_id=claims.run):
            return account.candidates
    except UserError:  # out of reach
        if demanded:
            raise
    if demanded:
        raise VerificationFailed(f"ledger {book.place}: does not hold the entry this bundle was charged under")
    return None


def _ledger_of_run(bundle: Path) -> Ledger:
    """$SYNTH_LEDGER, else the one in the configuration of the run beside the bundle, else as for `synth budget`."""
    folder = RunFolder(bundle.resolve().parent)
    if (folder.internal / "run.json").is_file():
        try:
            return Ledger.open(ledger_of(None, folder.run().config.ledger.url), create=False)
        except (SynthError, OSError):
            pass  # its configuration names files or variables that are gone by now
    return open_ledger(None)


def _signing_key(file: Path | None, password_env: str | None) -> SigningKey:
    return signing_key(file, os.environ, password=_password(password_env))


def _password(variable: str | None) -> bytes | None:
    if variable is None:
        return None
    if not (password := os.environ.get(variable)):
        raise UserError(f"--password-env {variable}: this environment variable is not set; put the password there")
    return password.encode()


def _lists(bundle: Path, named: Path | None) -> list[Path]:
    """The revocation lists that are written: the one named, one's own, and the one beside the bundle."""
    own = os.environ.get(LIST_VARIABLE) or platformdirs.user_data_path("synth") / LIST_FILE
    paths = [*([named] if named else []), Path(own), bundle.resolve().parent / LIST_FILE]
    return list(dict.fromkeys(path.absolute() for path in paths))


def lists_to_read(bundle: Path, named: Path | None) -> list[Path]:
    """Those that are there. The one named has to be."""
    required = None if named is None else named.absolute()
    return [path for path in _lists(bundle, named) if path == required or os.path.lexists(path)]


def shown(text: str) -> str:
    """A name out of a bundle, safe to show on a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
