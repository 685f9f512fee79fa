"""`synth run`: check, then run the flow on Prefect, and return the finished bundle; `--resume` goes on with a run."""

from __future__ import annotations

import logging
from pathlib import Path

from datasheets import load_answers
from pipelines.dask_workers import refuse_without_dask
from pipelines.ledger_secret import concealed
from pipelines.quiet import quiet_prefect
from synth.config import load_run
from synth.errors import SynthError
from synth.prepare import exposures, prepare
from synth.privacy.boundary import guarded
from synth.privacy.ledger import Ledger
from synth.release import open_questions
from synth.resume import can_be_resumed, resume
from synth.run_folder import RunFolder, private_umask

logger = logging.getLogger(__name__)


def run_pipeline(run_file: Path, ledger_url: str, *, resumed: bool = False) -> Path:
    """The bundle of a new run, or of one that is resumed. Raises SynthError with a text free of private values."""
    private_umask()
    ledger = Ledger.open(ledger_url, create=False)
    refuse_without_dask(load_run(run_file))
    folder = resume(run_file, ledger) if resumed else _new(run_file, ledger)
    for line in exposures(folder.run().config.source, ledger):
        logger.warning("warning: %s", line)
    empty = "" if ledger.verify_chain() else ", which has no entries yet"
    logger.info("prepare: run %s is checked; its ledger is %s%s", folder.run_id, ledger.place, empty)
    quiet_prefect()
    with guarded("run", folder.internal):
        # Prefect and torch take seconds to load, and a mistake should not take seconds to be told.
        from pipelines.flow import Stopped, synth_run
        from pipelines.server import prefect_server

        reason = None
        try:
            with prefect_server():
                synth_run(str(folder.path), concealed(ledger_url))
        except Stopped as stopped:
            reason = stopped.reason or SynthError(str(stopped))
        except SynthError:  # of the server: the flow's own come as `Stopped`
            if not resumed:
                folder.delete()
            raise
        if reason is not None:
            raise reason
    unanswered = "put your answers in (`synth document`), " if open_questions(folder.bundle) else ""
    logger.info(
        "next: read %s (for you alone), %sthen `synth approve` or `synth reject`",
        folder.internal / "report.html",
        unanswered,
    )
    return folder.bundle


def _new(run_file: Path, ledger: Ledger) -> RunFolder:
    run = load_run(run_file)
    load_answers(run.config.answers)
    folder = prepare(run_file, ledger)
    if earlier := can_be_resumed(run, ledger):
        logger.warning("warning: run %s has died and is paid for; --resume would go on with it", earlier.run_id)
    return folder
