"""`synth run`: check, then run the flow on Prefect, and return the finished bundle."""

from __future__ import annotations

from pathlib import Path

from datasheets import load_answers
from pipelines.ledger_secret import concealed
from pipelines.quiet import quiet_prefect
from synth.config import load_run
from synth.errors import SynthError
from synth.prepare import prepare
from synth.privacy.boundary import guarded
from synth.privacy.ledger import Ledger
from synth.run_folder import private_umask


def run_pipeline(run_file: Path, ledger_url: str) -> Path:
    """The bundle of a new run. Raises SynthError with a text free of private values."""
    private_umask()
    load_answers(load_run(run_file).config.answers)
    folder = prepare(run_file, Ledger.open(ledger_url, create=False))
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
            folder.delete()
            raise
        if reason is not None:
            raise reason
    return folder.bundle
