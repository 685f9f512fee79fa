"""What a DP-SGD step costs: plain, ours, and Opacus, side by side in one run.

Every row computes the same gradient of the same critic on the same rows, up to and without the optimiser's
update. The machine may be busy with other work, so the rows take turns, and each time is divided by that of the plain
step of the same round; the table gives the median ratio with its quartiles, and the smallest of all times.
Peak memory is that of a process of its own for each row, above what it held before the first step.

    python benchmarks/dp_sgd.py [--rounds 30] [--device cpu] [--threads 1] [--out benchmarks]
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import opacus
import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import Tensor, nn

from synth.privacy.dp_sgd import GhostClipping, SecureStream, noised_sum
from synth.privacy.dp_sgd.refusals import refuse_unsafe_layers

MAX_GRAD_NORM, NOISE_SCALE = 1.0, 1.0
SETTINGS = {
    "MLP 128-256-256-1, batch 1024": ("mlp", 1024),
    "MLP 128-256-256-1, batch 4096": ("mlp", 4096),
    "conv 28×28, batch 256": ("conv", 256),
    "conv 28×28, batch 1024": ("conv", 1024),
}
PLAIN = "plain step"
SLOW_ROWS_EVERY = 5
"""Rounds between two turns of the Opacus rows, which would otherwise take most of the time."""
Step = Callable[[], object]


def critic_of(kind: str) -> nn.Module:
    """A 256-256 MLP on 128 numbers, or three strided convolutions (0.32 M parameters) on 28×28 pixels."""
    torch.manual_seed(0)
    if kind == "mlp":
        return nn.Sequential(
            nn.Linear(128, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
        )
    return nn.Sequential(
        nn.Conv2d(1, 48, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(48, 96, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(96, 160, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(160 * 9, 1),
    )  # fmt: skip


def plain_step(critic: nn.Module, x: Tensor) -> Step:
    """Forward and backward of the mean loss."""

    def step() -> None:
        critic.zero_grad()
        critic(x)[:, 0].mean().backward()

    return step


def our_step(critic: nn.Module, x: Tensor, *, clip: bool = True, noise: bool = True) -> Step:
    """The clipped sum, the noise on it, or both."""
    clipping = GhostClipping(refuse_unsafe_layers(critic), lambda x: critic(x)[:, 0], MAX_GRAD_NORM)
    zeros = [torch.zeros_like(parameter) for parameter in clipping.parameters]
    source = SecureStream()

    def step() -> list[Tensor]:
        sums = clipping.clipped_sum([x]) if clip else zeros
        return noised_sum(sums, NOISE_SCALE, source) if noise else sums

    return step


def opacus_hooks_step(critic: nn.Module, x: Tensor) -> Step:
    """Per-sample gradients by Opacus' hooks, clipped and summed by its optimiser, without noise."""
    hooked = GradSampleModule(critic, loss_reduction="sum")
    return _opacus_step(hooked, x, DPOptimizer, lambda _: hooked(x)[:, 0].sum())


def opacus_ghost_step(critic: nn.Module, x: Tensor) -> Step:
    """Opacus' ghost clipping: norms in a first backward pass, the reweighted loss in a second, without noise."""
    hooked = GradSampleModuleFastGradientClipping(critic, max_grad_norm=MAX_GRAD_NORM, loss_reduction="sum")
    kind = DPOptimizerFastGradientClipping
    return _opacus_step(hooked, x, kind, lambda own: DPTensorFastGradientClipping(hooked, own, hooked(x)[:, 0], "sum"))


def _opacus_step(hooked: nn.Module, x: Tensor, kind: type[DPOptimizer], loss: Callable[[DPOptimizer], Any]) -> Step:
    optimizer = kind(
        torch.optim.SGD(hooked.parameters(), 0.0),
        noise_multiplier=0.0,
        max_grad_norm=MAX_GRAD_NORM,
        expected_batch_size=len(x),
        loss_reduction="sum",
    )

    def step() -> list[Tensor]:
        optimizer.zero_grad()
        loss(optimizer).backward()
        optimizer.pre_step()
        return [parameter.grad for parameter in hooked.parameters() if parameter.grad is not None]

    return step


ROWS: dict[str, Callable[[nn.Module, Tensor], Step]] = {
    PLAIN: plain_step,
    "ours without noise": lambda critic, x: our_step(critic, x, noise=False),
    "noise by itself": lambda critic, x: our_step(critic, x, clip=False),
    "ours, total": our_step,
    "Opacus hooks, without noise": opacus_hooks_step,
    "Opacus ghost clipping, without noise": opacus_ghost_step,
}


def steps_of(setting: str, device: torch.device) -> dict[str, Step]:
    """A step function for each row, each with a critic of its own and the same weights and rows."""
    kind, batch = SETTINGS[setting]
    critic = critic_of(kind).to(device)
    x = torch.randn(batch, *((128,) if kind == "mlp" else (1, 28, 28)), device=device)
    return {row: make(copy.deepcopy(critic), x) for row, make in ROWS.items()}


def check_agreement(steps: dict[str, Step]) -> None:
    """The three ways to clip must give one sum, or their times mean nothing."""
    wanted, *others = (
        torch.cat([part.flatten() for part in steps[row]()])  # type: ignore[attr-defined]
        for row in ROWS
        if "without noise" in row
    )
    for found in others:
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def timed(step: Step, device: torch.device) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(setting: str, rounds: int, device: torch.device) -> list[dict[str, object]]:
    """Times of all rows of a setting, in turns."""
    steps = steps_of(setting, device)
    check_agreement(steps)
    seconds: dict[str, list[float]] = {row: [] for row in steps}
    ratios: dict[str, list[float]] = {row: [] for row in steps}
    for turn in range(rounds):
        for row, step in steps.items():
            if row.startswith("Opacus") and turn % SLOW_ROWS_EVERY:
                continue
            seconds[row].append(timed(step, device))
            ratios[row].append(seconds[row][-1] / seconds[PLAIN][-1])
    table: list[dict[str, object]] = []
    for row, times in seconds.items():
        low, middle, high = statistics.quantiles(ratios[row], n=4)
        table.append(
            {
                "setting": setting,
                "row": row,
                "ratio_to_plain": round(middle, 3),
                "ratio_lower_quartile": round(low, 3),
                "ratio_upper_quartile": round(high, 3),
                "median_ms": round(1e3 * statistics.median(times), 2),
                "min_ms": round(1e3 * min(times), 2),
            }
        )
    return table


def resident_peak_mb() -> float:
    """The largest resident memory this process has had so far, as Linux counts it."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("peak memory is read from /proc, which this system lacks")


def child_peak_mb(setting: str, row: str, device: torch.device) -> float:
    """Memory that five steps of one row took, above what this process held before."""
    step = steps_of(setting, device)[row]
    before = resident_peak_mb()
    for _ in range(5):
        step()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resident_peak_mb() - before


def peak_mb(setting: str, row: str, options: argparse.Namespace) -> float:
    """The same, in a process of its own."""
    command = [sys.executable, __file__, "--device", options.device, "--threads", str(options.threads)]
    ran = subprocess.run([*command, "--child", setting, row], capture_output=True, text=True, check=True)  # noqa: S603
    return float(ran.stdout.splitlines()[-1])


def write(table: list[dict[str, object]], options: argparse.Namespace) -> None:
    """The table as CSV and as Markdown."""
    folder = Path(options.out)
    with (folder / "dp_sgd.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    lines = [
        "# The cost of a DP-SGD step",
        "",
        f"Written by `python benchmarks/dp_sgd.py --rounds {options.rounds}`: {platform.machine()}, "
        f"{os.cpu_count()} cores of which {options.threads} used, device {options.device}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, Opacus {opacus.__version__}. "
        "Other work ran on the machine, so compare ratios, not milliseconds.",
        "",
        "A row is one gradient computation without the optimiser's update. Rows take turns, Opacus in every "
        f"{SLOW_ROWS_EVERY}th round; *ratio* is the median over rounds of a row's time by the plain step's of the same "
        "round, with quartiles. *Peak* is resident memory above what the process held before its first step. *Noise* "
        "is drawn on the CPU, one draw a parameter, and does not grow with the batch.",
    ]
    for setting in SETTINGS:
        lines += [
            "",
            f"## {setting}",
            "",
            "| | ratio | quartiles | median ms | least ms | peak MB |",
            "|---|---|---|---|---|---|",
        ]
        for row in (row for row in table if row["setting"] == setting):
            ratio = f"{row['ratio_to_plain']:.2f} | {row['ratio_lower_quartile']:.2f}–{row['ratio_upper_quartile']:.2f}"
            cost = f"{row['median_ms']:.1f} | {row['min_ms']:.1f} | {row['peak_mb']:.0f}"
            lines.append(f"| {row['row']} | {ratio} | {cost} |")
    (folder / "dp_sgd.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure every setting and write the two files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default=str(Path(__file__).parent))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message=".*hook.*")
    device = torch.device(options.device)
    if options.child:
        setting, row = options.child
        print(child_peak_mb(setting, row, device))
        return
    table: list[dict[str, object]] = []
    for setting in SETTINGS:
        for entry in measure(setting, options.rounds, device):
            entry["peak_mb"] = round(peak_mb(setting, str(entry["row"]), options), 1)
            table.append(entry)
            print(entry, file=sys.stderr)
    write(table, options)


if __name__ == "__main__":
    main()
