"""The command line `synth`. Errors are one line on stderr: what, where, what to do; the exit code says which kind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from pipelines import quiet, releasing
from pipelines.auditing import audit
from pipelines.budget import budget, ledger_of
from pipelines.comparing import compare
from pipelines.contrasting import contrast
from pipelines.deploying import deploy
from pipelines.detecting import detect
from pipelines.doctor import doctor
from pipelines.drafting import draft_schema
from pipelines.evaluating import evaluate
from pipelines.listing import runs
from pipelines.options import AsJson, LedgerOfRun
from pipelines.sampling import sample
from pipelines.starting import write_start
from synth.errors import SynthError, UserError
from synth.privacy.boundary import without_values

app = typer.Typer(
    name="synth",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
schema_app = typer.Typer(help="Work on schema.yaml.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(schema_app, name="schema")
app.add_typer(budget, name="budget")
app.add_typer(releasing.key, name="key")


def _say_version(asked: bool) -> None:
    if asked:
        from synth.run_folder import software

        typer.echo(software())
        raise typer.Exit


@app.callback()
def options_of_all(
    _: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Hand out data about people without handing out the people: differentially private synthetic tables and images."""


# Typer's error for a wrong command line. It comes from a copy of Click within Typer, or from Click, by version.
MISUSE: type[Exception] = typer.BadParameter.__mro__[1]

RunFile = Annotated[Path, typer.Argument(help="The run.yaml to follow.", show_default=False)]


Dictionary = Annotated[
    Path | None,
    typer.Option(
        "--dictionary",
        help="A data dictionary, CSV or Parquet: a line for each column, or each of its levels.",
        show_default=False,
    ),
]
Person = Annotated[
    str | None,
    typer.Option("--person", metavar="COLUMN", help="Who a row is about, where a person can have several rows."),
]
Target = Annotated[
    str | None,
    typer.Option("--target", metavar="COLUMN", help="The column that the others are to tell, if there is one."),
]


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Folder to make.", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Option(
            "--source",
            help="The table, a Parquet or CSV file or a folder of such: run.yaml names it.",
            show_default=False,
        ),
    ] = None,
    dictionary: Dictionary = None,
    person: Person = None,
    target: Target = None,
) -> None:
    """Write commented schema.yaml, run.yaml and answers.yaml to fill in. Nothing is overwritten.

    With --source the schema is drafted as by `synth schema draft`, else it is an example.
    """
    paths, notes = write_start(directory, source, dictionary, person=person, target=target)
    for path in paths:
        typer.echo(path)
    _tell(notes)


@schema_app.command("draft")
def draft(
    file: Annotated[
        Path,
        typer.Argument(
            help="A Parquet or CSV file, a folder of such, or a run.yaml whose source is meant.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write here instead of printing.", show_default=False),
    ] = None,
    dictionary: Dictionary = None,
    person: Person = None,
    target: Target = None,
) -> None:
    """Draft schema.yaml from the column names and types of a file, a folder of files or a query.

    No domain is taken from the values, so every domain is left for you to fill in from public knowledge (a codebook)
    and is marked `domain: unconfirmed`; a run refuses such a column. The kinds of a CSV file are guessed from its
    first rows: check them too. A data dictionary that you have as a table gives descriptions, units, bounds, categories
    and labels: read them, and remove one line to confirm them all. They are public only if nobody computed them from
    the data. Of images (a Parquet file, or a run.yaml with a folder) no picture is looked at.
    """
    draft = draft_schema(file, dictionary, person=person, target=target)
    if output is None:
        typer.echo(draft.text, nl=False)
        _tell(draft.notes)
        return
    if output.exists():
        raise UserError(f"{output}: exists already; name another file")
    from synth.files import write_whole

    write_whole(output, draft.text)
    typer.echo(output)
    _tell(draft.notes)


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        typer.echo(note, err=True)


@app.command()
def plan(run_yaml: RunFile, ledger: LedgerOfRun = None, as_json: AsJson = False) -> None:
    """Say, from config and schema alone, what a run would spend, how noisy it would be, and what is left after it.

    The source is not opened.
    """
    from pipelines.planning import plan_report, print_plan

    report = plan_report(run_yaml, _ledger_of(run_yaml, ledger))
    for warning in report["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        print_plan(report)


@app.command()
def run(
    run_yaml: RunFile,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the latest run that has died, from what it has saved.")
    ] = False,
    ledger: LedgerOfRun = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline: measure with noise, fit, sample, evaluate, document, seal.

    The budget is reserved in the ledger before the first private row is read. The last line of stdout is the bundle's
    path; everything else goes to stderr.

    With --resume, a run of this run.yaml that died goes on from its noised measurements and its last checkpoint, or
    with the stage it had come to. Nothing is drawn again and nothing more is charged.
    """
    from pipelines.running import run_pipeline

    url = _ledger_of(run_yaml, ledger)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints: stdout is for the result alone
            bundle = run_pipeline(run_yaml, url, resumed=resume)
    except KeyboardInterrupt:
        raise SynthError("stopped; what was reserved stays spent") from None
    typer.echo(json.dumps({"bundle": str(bundle)}) if as_json else str(bundle))


for command in (
    sample,
    contrast,
    releasing.document,
    releasing.approve,
    releasing.reject,
    releasing.release,
    releasing.revoke,
    releasing.verify,
    compare,
    detect,
    audit,
    evaluate,
    deploy,
    runs,
    doctor,
):
    app.command()(command)


def _ledger_of(run_yaml: Path, option: str | None) -> str:
    from synth.config import load_run

    return ledger_of(option, load_run(run_yaml).config.ledger.url)


def main() -> None:
    """Entry point of the console script."""
    os.umask(0o077)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends like Ctrl-C
    quiet.plain_lines()
    try:
        code = app(prog_name="synth", standalone_mode=False)
    except SynthError as error:
        _fail(str(error), error.exit_code)
    except MISUSE as error:
        _fail_misuse(error)
    except (typer.Abort, KeyboardInterrupt):
        _fail("stopped", 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:  # never a traceback: it would quote what it failed on
        _fail(str(without_values("synth", error)), 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail_misuse(error: Any) -> NoReturn:
    context = error.ctx
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(context.get_help(), err=True)
        sys.exit(2)
    hint = f"; see `{context.command_path} --help`" if context else ""
    _fail(f"{error.format_message().rstrip('.')}{hint}", 2)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"synth: {releasing.shown(' '.join(message.split()))}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
