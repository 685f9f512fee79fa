"""The long audit: more canaries than a run's own, and shadow tables; into an internal folder, for the steward alone.

On a bundle's synthetic rows or on a declared public table it costs nothing. On private rows it is one more run of the
mechanism on the same people: it reserves before it reads, spends as it draws, and settles; shadow tables, which
would cost once a repetition, are left out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synth.config import Database, Run, load_run
from synth.errors import NotBuiltYet, SynthError, UserError
from synth.files import identities, write_whole
from synth.ingest import at_rest, check_header, read_batches, read_persons
from synth.parquet import part_files, read_file
from synth.prepare import plan_run, refuse_large_delta
from synth.privacy.audit.long_images import ImageAudit
from synth.privacy.audit.one_run import Audit, encode_source, free, measuring, one_run_audit
from synth.privacy.audit.report import audit_page
from synth.privacy.audit.shadow import MIN_REPETITIONS, ShadowAudit, shadow_audit
from synth.privacy.audit.synthetic_rows import encode_free_rows, first_rows
from synth.privacy.boundary import guarded
from synth.privacy.contributions import bound_contributions
from synth.privacy.events import GdpEvent
from synth.privacy.ledger import Ledger
from synth.release.verify import examine
from synth.run_folder import RunFolder, create_run_folder, delete_leftovers, hold
from synth.tables.codec import codecs_of
from synth.tables.decode import arrow_schema
from synth.tables.encode import encode
from synth.tables.plan import refuse_too_large
from synth.tables.train import FitSettings

logger = logging.getLogger(__name__)

LONG_CANARIES = 2_000
MAX_CANARIES = 5_000
REPETITIONS = 100
FREE_ROWS = 50_000
"""Rows of a bundle or a public table that the one-run audit uses at most."""
SHADOW_ROWS = 2_000
SMALL_FIT = FitSettings(
    members=1, steps=60, latent_points=64, hidden_size=64, learning_rate=3e-3, accelerator="cpu", threads=1
)
"""Training is post-processing: what a small fit gives away, the measurements have given away."""

READING = (
    "A lower bound above the claimed epsilon refutes the claim. A lower bound below it proves nothing: an audit can"
    " refute epsilon, never prove it, and a stronger attack may exist."
)
DECLARED = (
    "That this table is public, and no copy of private rows, is the declaration of whoever named it: nothing here can"
    " check it beyond its not being the file of the run's source."
)
RowsOf = Literal["bundle", "public table", "private rows"]


@dataclass(frozen=True)
class Report:
    """Where an audit's report lies, and whether it refutes the claim.

    None on private rows: that depends on them exactly, so the report alone says it.
    """

    page: Path
    refuted: bool | None


class Audited(Protocol):
    """The mechanism of a run, on a table or on images, and how rows are brought to it."""

    @property
    def events(self) -> tuple[GdpEvent, ...]:
        """What one audit on private rows spends."""

    @property
    def arrow_schema(self) -> pa.Schema:
        """Of a bundle's rows."""

    def check_source(self) -> None:
        """Look at the header of the run's source. Raises InvalidSource."""

    def check_public(self, table: Path) -> None:
        """Look at the header of a public table. Raises InvalidSource or UserError."""

    def encode_source(self, destination: Path) -> None:
        """Encode the private rows as a run does."""

    def encode_public(self, table: Path, destination: Path, *, rows: int) -> None:
        """Encode the first rows of a public table, with at most as many of a person as may stay."""

    def encode_synthetic(self, batches: Iterator[pa.RecordBatch], destination: Path, *, rows: int) -> None:
        """Encode the first rows of a bundle."""

    def one_run(self, base: Path, folder: Path, *, canaries: int, charge: Callable[[str], None] | None = None) -> Audit:
        """The one-run audit on encoded rows; `charge` where they are private."""

    def shadow(self, base: Path, folder: Path, *, repetitions: int, progress: Callable[[int], None]) -> ShadowAudit:
        """Shadow tables on encoded rows that cost nothing."""


class TableAudit:
    """An `Audited`: the mechanism of a run on a table."""

    def __init__(self, run: Run) -> None:
        """Bind to a run; nothing is read. Raises what says that the table is too large."""
        self._run, self._schema, self._delta = run, run.table, run.config.privacy.delta
        if run.table.columns_to_estimate:
            names = ", ".join(column.name for column in run.table.columns_to_estimate)
            raise NotBuiltYet(
                f"{run.file}: bounds of {names} are estimated, and an audit wants them declared; give it a run.yaml "
                "whose schema is the bundle's"
            )
        self._layout, self._plan = plan_run(run)
        refuse_too_large(self._layout, self._plan, codecs_of(run.table))

    @property
    def events(self) -> tuple[GdpEvent, ...]:
        """See `Audited`."""
        return self._plan.releases

    @property
    def arrow_schema(self) -> pa.Schema:
        """See `Audited`."""
        return arrow_schema(self._schema, codecs_of(self._schema))

    def check_source(self) -> None:
        """See `Audited`."""
        check_header(self._run.rows, self._schema)

    def check_public(self, table: Path) -> None:
        """See `Audited`."""
        check_header(table, self._schema)

    def encode_source(self, destination: Path) -> None:
        """See `Audited`."""
        with at_rest(self._run.rows) as source:
            encode_source(source, self._schema, destination)

    def encode_public(self, table: Path, destination: Path, *, rows: int) -> None:
        """See `Audited`."""
        encode(first_rows(_bounded(table, self._run), rows), codecs_of(self._schema), destination)

    def encode_synthetic(self, batches: Iterator[pa.RecordBatch], destination: Path, *, rows: int) -> None:
        """See `Audited`."""
        encode_free_rows(batches, self._schema, destination, rows=rows)

    def one_run(self, base: Path, folder: Path, *, canaries: int, charge: Callable[[str], None] | None = None) -> Audit:
        """See `Audited`."""
        return one_run_audit(
            base,
            self._schema,
            layout=self._layout,
            plan=self._plan,
            delta=self._delta,
            folder=folder,
            canaries=canaries,
            mechanism=None if charge is None else measuring(self._schema, self._layout, self._plan, charge),
        )

    def shadow(self, base: Path, folder: Path, *, repetitions: int, progress: Callable[[int], None]) -> ShadowAudit:
        """See `Audited`."""
        return shadow_audit(
            base,
            self._schema,
            layout=self._layout,
            mechanism=measuring(self._schema, self._layout, self._plan, free),
            settings=SMALL_FIT,
            delta=self._delta,
            folder=folder,
            repetitions=repetitions,
            progress=progress,
        )


def long_audit(
    run_file: Path,
    *,
    ledger: Callable[[bool], Ledger],
    bundle: Path | None = None,
    public_table: Path | None = None,
    repetitions: int | None = None,
    canaries: int | None = None,
) -> Report:
    """Audit the mechanism of a run.

    Args:
        run_file: the run.yaml.
        ledger: opens the ledger, and makes it when told to; called only for private rows.
        bundle: audit on this bundle's synthetic rows; free. It has to be intact.
        public_table: audit on this table, which the caller declares public; free. Never the run's own source.
        repetitions: of the pipeline on shadow tables; None for REPETITIONS, 0 for none. Not on private rows.
        canaries: how many to plant in the one-run audit; None for LONG_CANARIES.

    Raises UserError, PrivacyRefusal (the cap; nothing was read), VerificationFailed (the bundle) or InvalidSource.
    """
    canaries = LONG_CANARIES if canaries is None else canaries
    _refuse_misuse(bundle, public_table, repetitions, canaries)
    run = load_run(run_file)
    run.declared.refuse_unconfirmed()
    refuse_large_delta(run)
    audited: Audited = TableAudit(run) if run.images is None else ImageAudit(run, run.images)
    if bundle is None and public_table is None:
        return _on_private_rows(run, ledger, audited, canaries=canaries)
    if public_table is not None:
        _refuse_source(public_table, run)
        audited.check_public(public_table)
    parts = _parts(bundle, run, audited.arrow_schema) if bundle is not None else []
    with _working(run) as folder:
        base, small = folder.private / "base.arrow", folder.private / "small.arrow"
        for file, rows in ((base, FREE_ROWS), (small, SHADOW_ROWS)):
            if public_table is not None:
                audited.encode_public(public_table, file, rows=rows)
            else:
                audited.encode_synthetic(_batches(parts), file, rows=rows)
        found = audited.one_run(base, folder.private, canaries=canaries)
        logger.info("audit: the one-run audit is done")
        shadow = None
        if repetitions != 0:
            times = repetitions or REPETITIONS
            shadow = audited.shadow(small, folder.private, repetitions=times, progress=_plain_progress(times))
        return _report(folder, "bundle" if bundle is not None else "public table", found, shadow)


def _refuse_misuse(bundle: Path | None, public_table: Path | None, repetitions: int | None, canaries: int) -> None:
    if bundle is not None and public_table is not None:
        raise UserError("--bundle and --public-table: name one of them")
    if not 8 <= canaries <= MAX_CANARIES:
        raise UserError(f"--canaries: from 8 to {MAX_CANARIES}, not {canaries}")
    if bundle is None and public_table is None and repetitions:
        raise UserError(
            "--repetitions: every repetition on private rows would spend the budget again; "
            "name --bundle or --public-table"
        )
    if repetitions and (repetitions < MIN_REPETITIONS or repetitions % 4):
        raise UserError(f"--repetitions: 0 or a multiple of 4 from {MIN_REPETITIONS}, not {repetitions}")


def _on_private_rows(run: Run, open_ledger: Callable[[bool], Ledger], audited: Audited, *, canaries: int) -> Report:
    """One run of the mechanism on the private rows and planted canaries, charged as any run is."""
    events = {event.name: event for event in audited.events}
    population = run.declared.ledger_population
    open_ledger(False).refuse_if_over_cap(population, list(events.values()))
    with guarded("audit"):
        audited.check_source()
    ledger = open_ledger(True)
    with _working(run, ledger) as folder:
        ledger.reserve(
            population=population,
            dataset=run.declared.dataset,
            run_id=folder.run_id,
            events=list(events.values()),
            delta=run.config.privacy.delta,
        )
        base = folder.private / "base.arrow"
        audited.encode_source(base)
        found = audited.one_run(
            base,
            folder.private,
            canaries=canaries,
            charge=lambda name: _spend(ledger, folder.run_id, events[name]),
        )
        ledger.settle(folder.run_id)
        return _report(folder, "private rows", found, None)


def _spend(ledger: Ledger, run_id: str, event: GdpEvent) -> None:
    ledger.spend(run_id, event)


@contextmanager
def _working(run: Run, ledger: Ledger | None = None) -> Iterator[RunFolder]:
    """A folder for one audit. After a failure its account is closed, and it goes unless it has something to tell."""
    delete_leftovers(run.config.output.directory)
    folder = create_run_folder(run, name="audit")
    try:
        with guarded("audit", folder.internal), hold(folder):
            yield folder
    except SynthError:  # whatever else goes wrong has become one; a kill or Ctrl-C leaves the account open, in full
        closed = ledger.close_failed(folder.run_id) if ledger is not None else None
        charged = closed is not None and closed.kind == "settle"
        if not charged and not any(folder.internal.glob("failure-*.txt")):
            folder.delete()
        raise


def _refuse_source(public_table: Path, run: Run) -> None:
    """Raise UserError when a table shares a file with the run's source, by whatever name or link.

    A copy is not found out: to compare rows would be to read private ones.
    """
    source = run.config.source
    files = [] if isinstance(source, Database) else [source.path, *([source.folder] if source.folder else [])]
    files += [run.config.evaluation.file] if run.config.evaluation.file else []
    if any(identities(public_table) & identities(file) for file in files):
        raise UserError(
            f"--public-table {public_table}: is the source or the hold-out file of {run.file}, whose rows are private; "
            "name a public table, or leave the option out to audit on the private rows, which is charged"
        )


def _parts(bundle: Path, run: Run, expected: pa.Schema) -> list[Path]:
    """The synthetic rows of a bundle.

    Raises UserError for rows of another schema or without the mark of synthetic ones, VerificationFailed unless the
    bundle is intact.
    """
    examine(bundle)
    parts = part_files(bundle / "data")
    for part in parts:
        try:
            found = pq.read_schema(part)
        except (pa.ArrowException, OSError):
            raise UserError(f"{part}: damaged or not Parquet; check the bundle with `synth verify`") from None
        if not found.remove_metadata().equals(expected.remove_metadata()):
            raise UserError(f"{bundle}: has another schema than {run.file}; name a bundle of this run")
        if (found.metadata or {}).get(b"synthetic") != b"true":
            raise UserError(f"{part}: is not marked as synthetic; name a bundle that a run has made")
    return parts


def _batches(parts: list[Path]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        yield from read_file(part)


def _bounded(source: Path, run: Run) -> Iterator[pa.RecordBatch]:
    """The declared columns of a table, with at most as many rows of a person as may stay."""
    stays, seen = None, 0
    if run.table.person_column is not None:
        persons = read_persons(source, run.table)
        stays = bound_contributions(persons, max_rows_per_person=run.table.max_rows_per_person)
    for batch in read_batches(source, run.table):
        kept = np.ones(batch.num_rows, dtype=np.bool_) if stays is None else stays[seen : seen + batch.num_rows]
        seen += batch.num_rows
        yield batch.filter(pa.array(kept))


def _plain_progress(repetitions: int) -> Callable[[int], None]:
    step = max(1, repetitions // 10)

    def tell(done: int) -> None:
        if done % step == 0 or done == repetitions:
            logger.info("audit: repetition %d of %d", done, repetitions)

    return tell


def _report(folder: RunFolder, rows_of: RowsOf, found: Audit, shadow: ShadowAudit | None) -> Report:
    content: dict[str, Any] = {
        "run": folder.run_id,
        "created": folder.created(),
        "rows_of": rows_of,
        "charged": rows_of == "private rows",
        "reading": READING,
        "declared": DECLARED if rows_of == "public table" else None,
        "refuted": found.refuted,
        "one_run": found.facts.model_dump(mode="json"),
        "shadow": None if shadow is None else asdict(shadow),
    }
    write_whole(folder.internal / "audit.json", json.dumps(content, indent=1))
    page = folder.internal / "audit.html"
    write_whole(page, audit_page(content))
    logger.info("audit: done; %s", "charged" if content["charged"] else "this cost no budget")
    return Report(page=page, refuted=None if rows_of == "private rows" else found.refuted)
