"""Processes of this machine that train one model together, under Lightning's DDP: how they start, meet and end.

The run's own process is the first, rank 0. It starts the others, which are told a folder and their rank, and end when
it does. All meet in a file of the run's private folder and speak over the loopback interface alone (gloo), or as NCCL
does between GPUs. What they say is not encrypted: gloo as PyTorch ships it cannot.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

import synth
from synth.errors import SynthError, UserError

PATIENCE = timedelta(hours=1)
"""The longest that one process may be behind another. One that ends is noticed at once."""
END_SECONDS = 60.0
READY = b"ready\n"


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is, on what they compute, and the file they meet in; alone by default."""

    rank: int = 0
    count: int = 1
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    meeting: Path | None = None


def accelerator_of(asked: Literal["auto", "cpu", "gpu"], processes: int) -> Literal["auto", "cpu", "gpu"]:
    """What so many processes compute on: a GPU each where there are as many, else the processor.

    Raises UserError where GPUs are asked for and there are fewer. One process alone is left to Lightning.
    """
    if processes == 1 or asked == "cpu":
        return asked
    gpus = torch.cuda.device_count()
    if gpus >= processes:
        return "gpu"
    if asked == "gpu":
        raise UserError(
            f"synthesizer.critic.processes: {processes} processes want a GPU each, and {gpus} are here; ask for fewer, "
            "or for `accelerator: cpu`"
        )
    return "cpu"


@contextmanager
def companions(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Start the other processes of a run (`synth.tables.companion`) and see them end well. What they print is nobody's.

    Raises SynthError when one of them fails. They end with this process, and with an error in it.
    """
    started: list[subprocess.Popen[bytes]] = []
    # The folder of this very package, whatever the environment says; -P keeps the working folder out.
    home = str(Path(synth.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    try:
        for rank in range(1, ranks.count):
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "synth.tables.companion"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": paths},
            )
            started.append(process)
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # told below, where nothing comes back
                process.stdin.write(json.dumps([str(folder), rank]).encode() + b"\n")
                process.stdin.flush()
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline() != READY:
                raise SynthError("one of the critic's processes has not started; is there memory enough for all?")
        yield
        if any(process.wait(END_SECONDS) for process in started):
            raise SynthError("one of the critic's processes has failed")
    finally:
        for process in started:
            process.kill()
            process.communicate()


def told() -> tuple[Path, int]:
    """Of a process that `companions` has started: the run's folder and its rank. It ends when the run's does."""
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(0, 1)):
            os._exit(1)
        line += byte
    folder, rank = json.loads(line)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return Path(folder), int(rank)


def ready() -> None:
    """Of such a process: tell that it is about to join the others."""
    os.write(1, READY)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


@contextmanager
def joined(ranks: Ranks) -> Iterator[None]:
    """Be one of the processes; nothing where there is no other."""
    if ranks.count == 1:
        yield
        return
    before = {name: os.environ.get(name) for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
    os.environ.update(dict.fromkeys(before, _loopback()))
    hook = sys.excepthook  # PyTorch puts one of its own there, and leaves it
    try:
        dist.init_process_group(
            "nccl" if ranks.accelerator == "gpu" else "gloo",
            init_method=f"file://{ranks.meeting}",
            rank=ranks.rank,
            world_size=ranks.count,
            timeout=PATIENCE,
        )
        try:
            yield
        finally:
            dist.destroy_process_group()
    finally:
        sys.excepthook = hook
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _loopback() -> str:
    """The name of the interface: lo, or lo0."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


def strategy_of(ranks: Ranks) -> DDPStrategy | Literal["auto"]:
    """Lightning's strategy: DDP among processes that are there already. Whoever is alone needs none."""
    if ranks.count == 1:
        return "auto"
    # The generators' loss leaves the critic's weights out.
    return DDPStrategy(cluster_environment=_Environment(ranks), find_unused_parameters=True, timeout=PATIENCE)


def refuse_apart(weights: Iterable[Tensor], ranks: Ranks) -> None:
    """Raise SynthError unless the weights are finite and, to the last bit, those of the first process."""
    own = torch.cat([weight.detach().reshape(-1) for weight in weights])
    first = own.clone()
    if ranks.count > 1:
        dist.broadcast(first, 0)
    if not torch.equal(own, first) or not bool(own.isfinite().all()):
        raise SynthError("refine: the processes of the critic have come apart, or its weights are no numbers")


class _Environment(ClusterEnvironment):
    """What Lightning asks of whoever has started its processes. They have met before it comes."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return 0  # nobody listens: they meet in a file

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._ranks.count

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self._ranks.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self._ranks.rank

    def node_rank(self) -> int:
        return 0
