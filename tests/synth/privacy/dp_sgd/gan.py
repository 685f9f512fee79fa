"""A tiny GAN whose critic is private, in a LightningModule with manual optimisation."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from synth.privacy.dp_sgd import DpSgdConfig, PoissonBatches, PrivateBatch, PrivateCritic

CONFIG = DpSgdConfig(sample_rate=0.2, steps=12, expected_batch_size=40, max_grad_norm=1, noise_multiplier=0.5)


class PrivateGan(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Linear(2, 2)
        self.critic = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
        self.private = PrivateCritic(self.critic, lambda x: -self.critic(x)[:, 0], [torch.randn(4, 2)], CONFIG)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(self.critic.parameters(), 0.02), torch.optim.Adam(self.generator.parameters(), 0.02)]

    def generated(self) -> Tensor:
        return self.generator(torch.randn(40, 2, device=self.device))

    def training_step(self, batch: PrivateBatch, batch_idx: int) -> None:
        critic_step, generator_step = self.optimizers()
        with torch.no_grad():
            fakes = self.generated()
        self.private.private_step(batch.columns, persons=batch.persons, free_loss=lambda: self.critic(fakes).mean())
        critic_step.step()
        self.toggle_optimizer(generator_step)
        generator_step.zero_grad()
        self.manual_backward(-self.critic(self.generated()).mean())
        generator_step.step()
        self.untoggle_optimizer(generator_step)


def train(**trainer: object) -> PrivateGan:
    """Train on 200 people of two rows each."""
    gan = PrivateGan()
    rows = torch.randn(400, 2) + 2
    batches = PoissonBatches([rows], CONFIG, persons=torch.arange(400).numpy() // 2)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    pl.Trainer(accelerator="cpu", max_epochs=1, **quiet, **trainer).fit(gan, batches)
    return gan
