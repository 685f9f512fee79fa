"""Pre-train: what public pictures teach about detail, before any person is drawn.

The moments' model knows a picture's lowest frequencies alone. On public pictures both these and the whole are known, so
the residual learns to add what is missing, by least squares. It sees what it will see of the model's own pictures: as
many coefficients, under the same dither. Nothing here is private: how many coefficients there are follows from a noised
count, and all else is public. One seed, the same pictures and machine give the same weights.
"""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from synth.images.model import DITHER, ImageModel
from synth.images.residual import Residual, residual_for
from synth.images.transform import GRID_BITS
from synth.refinement import RefineSettings
from synth.threads import torch_threads

logger = logging.getLogger(__name__)

BATCH = 128
LEARNING_RATE = 2e-3
SEED = 0


def pretrain(model: ImageModel, pixels: npt.NDArray[np.uint16], *, steps: int, settings: RefineSettings) -> Residual:
    """A residual as public pictures `pixels` [n, height, width, channels] teach it, by so many steps of Adam.

    `settings` are those of the critic that may refine it.
    """
    with torch_threads(settings.threads):
        return _pretrained(model, pixels, steps, settings)


def _pretrained(model: ImageModel, pixels: npt.NDArray[np.uint16], steps: int, settings: RefineSettings) -> Residual:
    form, transform, d = model.schema.image, model.transform, model.means.shape[1]
    device = torch.device("cuda" if settings.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    shape, random = (-1, form.channels, form.height, form.width), torch.Generator().manual_seed(SEED)
    waves = transform.values(np.eye(d), form.height, form.width)
    basis = torch.from_numpy(waves).float().permute(0, 3, 1, 2).flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        residual = residual_for(model.schema, settings.hidden_size)
    residual.by_class.weight.data.zero_()  # public pictures are of no class
    residual.by_class.weight.requires_grad_(False)
    residual = residual.to(device)
    learned = [parameter for parameter in residual.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=LEARNING_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        some = pixels[torch.randint(len(pixels), (BATCH,), generator=random).numpy()]
        known = torch.from_numpy(transform.coefficients(some)[:, :d] * 2.0**-GRID_BITS).float()
        seen = known + DITHER * torch.randn(known.shape, generator=random)
        low, seen = ((x @ basis).view(shape).to(device) for x in (known, seen))
        whole = torch.from_numpy((some - float(form.low)) / (form.high - form.low)).float().permute(0, 3, 1, 2)
        classes = torch.zeros(BATCH, dtype=torch.int64, device=device)
        loss = functional.mse_loss(low + residual(seen, classes), whole.to(device))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if step in {steps // 2, steps}:
            logger.info("train: step %d of %d on public pictures", step, steps)
    return residual.cpu().eval().requires_grad_(True)
