"""DP-SGD: per-person clipping by ghost norms, Poisson sampling, noise from the cryptographic stream.

    config = DpSgdConfig(sample_rate=0.01, steps=2000, expected_batch_size=500, max_grad_norm=1, noise_multiplier=1.5)
    critic = PrivateCritic(network, lambda x: -network(x)[:, 0], [torch.randn(8, 784)], config)
    for batch in PoissonBatches([rows], config):
        critic.private_step(batch.columns, persons=batch.persons, free_loss=lambda: network(generate(500)).mean())
        optimizer.step()

What a step releases is accounted as one Poisson-subsampled Gaussian with sampling rate q and noise
multiplier σ; the T of them compose. Papers: Abadi et al. 2016 (arXiv 1607.00133), Goodfellow 2015 (1510.01799),
Lee & Kifer 2020 (2009.03106), Li et al. 2021 (2110.05679).

It runs where torch does; it is tested on CPUs. float64 is needed on the device, so Apple's MPS is out.
"""

from synth.privacy.dp_sgd.clipping import GhostClipping
from synth.privacy.dp_sgd.config import DpSgdConfig
from synth.privacy.dp_sgd.noising import PROTECTION, noised_sum
from synth.privacy.dp_sgd.randomness import SecureStream
from synth.privacy.dp_sgd.sampling import PoissonBatches, PrivateBatch
from synth.privacy.dp_sgd.step import PrivateCritic

__all__ = [
    "PROTECTION",
    "DpSgdConfig",
    "GhostClipping",
    "PoissonBatches",
    "PrivateBatch",
    "PrivateCritic",
    "SecureStream",
    "noised_sum",
]
