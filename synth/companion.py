"""One of several processes that refine a run: python -m synth.companion, which `synth.ranks` talks to."""

from __future__ import annotations

import logging
import os
import secrets
import sys

import torch

from synth.privacy.boundary import guarded
from synth.ranks import Told
from synth.run_folder import RunFolder, private_umask
from synth.stages import recipe_of

if __name__ == "__main__":
    told = Told()
    private_umask()
    torch.manual_seed(secrets.randbits(63))  # other generated rows than the other processes; no noise comes from it
    folder = RunFolder(told.folder)
    progress = logging.getLogger("synth.refinement")
    progress.addHandler(logging.StreamHandler(sys.stdout))
    progress.setLevel(logging.INFO)
    try:
        with guarded("refine", folder.internal):
            told.end(recipe_of(folder.run()).refine_beside(folder, told.rank, wait=told.wait_to_go))
    finally:
        os._exit(1)  # whoever has failed is not taken down either: see `synth.ranks`
