"""A whole step: what `.grad` holds afterwards, how many steps there are, and training inside Lightning."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import Tensor, nn

import synth
from synth.errors import PrivacyRefusal
from synth.privacy.dp_sgd import DpSgdConfig, PrivateCritic, SecureStream

CONFIG = DpSgdConfig(sample_rate=0.1, steps=2, expected_batch_size=10, max_grad_norm=0.5, noise_multiplier=3)
GAN = Path(__file__).with_name("gan.py")


class Silence(SecureStream):
    def standard_normal(self, count: int) -> np.ndarray:
        return np.zeros(count)


def private(network: nn.Module, config: DpSgdConfig = CONFIG, **options: object) -> PrivateCritic:
    return PrivateCritic(network, lambda x: network(x)[:, 0], [torch.randn(4, 3)], config, **options)


def grads(network: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def test_real_and_free_gradients_equal_a_loop_together() -> None:
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    x, fakes = torch.randn(6, 3).double(), torch.randn(9, 3).double()
    parameters = list(network.parameters())

    def free() -> Tensor:
        inside = fakes.clone().requires_grad_()
        out = network(inside)
        (slope,) = torch.autograd.grad(out.sum(), inside, create_graph=True)
        return out.mean() + 10 * ((slope.norm(dim=1) - 1) ** 2).mean()

    wanted = torch.cat([grad.flatten() for grad in torch.autograd.grad(free(), parameters, allow_unused=True,
                                                                       materialize_grads=True)])  # fmt: skip
    for row in x:
        grad = torch.cat([part.flatten() for part in torch.autograd.grad(network(row[None]).sum(), parameters)])
        wanted += grad * min(1, 0.5 / float(grad.norm())) / 10
    step = PrivateCritic(
        network,
        lambda x: network(x)[:, 0],
        [torch.randn(4, 3).double()],
        CONFIG.model_copy(update={"noise_multiplier": 1e-9}),
        noise=Silence(),
    )
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 7.0)  # replaced, not added to
    step.private_step([x], free_loss=free)
    torch.testing.assert_close(grads(network), wanted, rtol=1e-8, atol=1e-10)


def test_an_empty_batch_adds_noise_of_the_stated_scale_and_counts() -> None:
    network = nn.Sequential(nn.Linear(3, 5000), nn.Linear(5000, 1))
    step = private(network)
    step.private_step([torch.zeros(0, 3)])
    scale = CONFIG.noise_scale / CONFIG.expected_batch_size
    assert stats.kstest(grads(network).numpy() / scale, "norm").pvalue > 1e-9
    assert step.steps_taken == 1


def test_after_all_steps_the_next_is_refused() -> None:
    network = nn.Linear(3, 1)
    step = private(network)
    step.private_step([torch.randn(2, 3)])
    step.private_step([torch.zeros(0, 3)])
    with pytest.raises(PrivacyRefusal, match="all 2 steps"):
        step.private_step([torch.randn(2, 3)])
    resumed = private(network, steps_taken=1)
    resumed.private_step([torch.randn(2, 3)])
    with pytest.raises(PrivacyRefusal, match="all 2 steps"):
        resumed.private_step([torch.randn(2, 3)])


def test_free_loss_is_a_scalar_and_float16_is_refused() -> None:
    network = nn.Linear(3, 1)
    with pytest.raises(ValueError, match="scalar"):
        private(network).private_step([torch.randn(2, 3)], free_loss=lambda: network(torch.randn(2, 3))[:, 0])
    with torch.autocast("cpu", torch.float16), pytest.raises(PrivacyRefusal, match="float16"):
        private(network).private_step([torch.randn(2, 3)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_rate": 0.0},
        {"sample_rate": 1.1},
        {"steps": 0},
        {"expected_batch_size": 0},
        {"max_grad_norm": float("inf")},
        {"max_grad_norm": 1e-42},  # denormal in float32: a clipped gradient would be longer by a hundredth
        {"noise_multiplier": 0.0},
        {"rows": 5},
    ],
)
def test_constants_are_checked_and_frozen(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        DpSgdConfig(**{**CONFIG.model_dump(), **wrong})
    with pytest.raises(ValidationError):
        CONFIG.steps = 3  # type: ignore[misc]


def load_gan() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gan", GAN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings(
    "ignore::UserWarning:pytorch_lightning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_inside_lightning(precision: str) -> None:
    gan = load_gan().train(precision=precision)
    assert gan.private.steps_taken == 12
    assert all(parameter.isfinite().all() for parameter in gan.parameters())
    assert gan.trainer.callback_metrics == {} and gan.trainer.logged_metrics == {}


def test_two_processes_share_one_noise_and_every_row(tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_processes.py")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(synth.__file__).parents[1])}
    env |= {"WORLD_SIZE": "2", "NODE_RANK": "0", "MEETING": str(tmp_path / "meeting")}
    command = [sys.executable, "-W", "ignore", str(script)]
    running = [
        subprocess.Popen(
            command,
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=600)[0].decode() for process in running]
    finally:
        for process in running:
            process.kill()  # one that waits for a partner that has failed
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    assert [text.strip().splitlines()[-1] for text in said] == ["as one", "as one"], "\n".join(said)
