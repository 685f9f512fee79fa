"""One more process that refines beside the run's own: python -m synth.tables.companion, told by its standard input.

What it prints is read by nobody: an error would quote what it has in hand.
"""

from __future__ import annotations

import os
import secrets

import torch

from synth.run_folder import RunFolder, private_umask
from synth.tables.ranks import told
from synth.tables.stages import refine_beside

if __name__ == "__main__":
    folder, rank = told()
    private_umask()
    torch.manual_seed(secrets.randbits(63))  # other generated rows than the other processes; no noise comes from it
    refine_beside(RunFolder(folder), rank)
    # Threads of gloo that still run when the interpreter is taken down abort it now and then.
    os._exit(0)
