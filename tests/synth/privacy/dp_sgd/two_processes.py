"""One of two processes that train one critic: run by test_step.py, with RANK and MEETING in the environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from scipy import stats
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from gan import train

from synth.privacy.dp_sgd import DpSgdConfig, GhostClipping, PoissonBatches, PrivateCritic, SecureStream, noised_sum

RANK = int(os.environ["RANK"])


def same_on_both(values: Tensor) -> bool:
    both = [torch.empty_like(values) for _ in range(2)]
    dist.all_gather(both, values)
    return torch.equal(*both)


def noise_is_added_once() -> None:
    noised = noised_sum([torch.full((40_000,), 1.0 + RANK)], 2.0, SecureStream())[0]
    assert stats.kstest((noised.numpy() - 3) / 2, "norm").pvalue > 1e-9, "the total noise is not σC"
    assert same_on_both(noised), "the processes see different sums"


def gradient_is_that_of_all_rows() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    x, fakes = torch.randn(9, 3), torch.randn(2, 6, 3)
    config = DpSgdConfig(sample_rate=1, steps=1, expected_batch_size=4, max_grad_norm=0.7, noise_multiplier=1e-6)
    step = PrivateCritic(network, lambda x: network(x)[:, 0], [torch.randn(4, 3)], config)
    (batch,) = PoissonBatches([x], config)
    assert len(batch.columns[0]) == (5, 4)[RANK], "the people are not divided between the processes"
    step.private_step(batch.columns, free_loss=lambda: network(fakes[RANK]).mean())
    found = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    layers = {name: layer for name, layer in network.named_children() if list(layer.parameters())}
    sums = GhostClipping(layers, lambda x: network(x)[:, 0], 0.7).clipped_sum([x])
    free = torch.autograd.grad(network(fakes.flatten(0, 1)).mean(), list(network.parameters()))
    wanted = torch.cat([(a / 4 + b).flatten() for a, b in zip(sums, free, strict=True)])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert same_on_both(found), "the processes hold different gradients"


def lightning_keeps_the_weights_together() -> None:
    torch.manual_seed(RANK)
    gan = train(devices=2, num_nodes=1, strategy="ddp_find_unused_parameters_true")
    assert gan.private.steps_taken == 12
    assert gan.trainer.world_size == 2
    assert same_on_both(torch.cat([parameter.detach().flatten() for parameter in gan.parameters()]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{os.environ['MEETING']}", rank=RANK, world_size=2)
    noise_is_added_once()
    gradient_is_that_of_all_rows()
    lightning_keeps_the_weights_together()
    print("as one", flush=True)
    # Threads of gloo that still run when the interpreter is taken down abort it now and then; all is checked by here.
    os._exit(0)
