"""Processes of this machine that train one model together, under Lightning's DDP: how they start, meet and end.

The run's own process is none of them. It starts them, tells each a folder and its rank, lets them go once it has
charged, and ends them; they end by themselves when it does. All meet in a file of the run's private folder and speak
over the loopback interface alone (gloo), or as NCCL does between GPUs. What they say is not encrypted: gloo as PyTorch
ships it cannot.

A process group is never taken down, its process is: gloo's threads may want Python's lock while their group, which is
being freed under that lock, waits for them.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import IO, Any, Literal

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

import synth
from synth.config import Run
from synth.errors import SynthError, UserError

logger = logging.getLogger(__name__)

PATIENCE = timedelta(hours=1)
"""The longest that one process may be behind another. One that ends is noticed at once."""
MEETING = "meeting"
"""The file of the run's private folder in which they find each other."""
REFINED = "refined"
"""The folder of it that has the model as they have refined it, until the run takes it."""
READY, GO, DONE, PROGRESS = b"ready\n", b"go\n", b"done ", b"refine: "


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


def ranks_of(run: Run, *, rank: int = 0, meeting: Path | None = None) -> Ranks:
    """The processes that share a run's critic. Raises UserError where they ask for more GPUs than there are."""
    asked = run.config.synthesizer
    count = asked.critic.processes
    return Ranks(rank, count, accelerator_of(asked.accelerator, count), meeting)


def together(folder: Path, count: int, *, charge: Callable[[], None]) -> Mapping[str, Any]:
    """Have so many processes refine the run in a folder (`synth.companion`); what the first has to tell.

    `charge` is called when all have started, and before any of them draws. Raises SynthError when one of them fails.
    """
    started: list[subprocess.Popen[bytes]] = []
    # The folder of this very package, whatever the environment says; -P keeps the working folder out.
    home = str(Path(synth.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    try:
        for rank in range(count):
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "synth.companion"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # an error would quote what is in hand
                bufsize=0,
                env=os.environ | {"PYTHONPATH": paths},
            )
            started.append(process)
            _tell(process, json.dumps([str(folder), rank]).encode() + b"\n")
        if any(_said(process).readline() != READY for process in started):
            raise SynthError("refine: one of the critic's processes has not started; is there memory for all of them?")
        charge()
        for process in started:
            _tell(process, GO)
        return _end([_said(process) for process in started])
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has ended, which is seen where it should answer
        process.stdin.write(line)


def _said(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout


def _end(said: Sequence[IO[bytes]]) -> Mapping[str, Any]:
    """What the first process says last, once all have ended well; its progress is told on the way.

    Raises SynthError as soon as one of them is silent for good: another may wait for it, and would for long.
    """
    found: dict[int, Mapping[str, Any]] = {}
    with DefaultSelector() as waiting:
        for rank, stream in enumerate(said):
            waiting.register(stream, EVENT_READ, rank)
        while len(found) < len(said):
            for key, _ in waiting.select():
                line = said[key.data].readline()
                if line.startswith(DONE):
                    found[key.data] = json.loads(line.removeprefix(DONE))
                    waiting.unregister(key.fileobj)
                elif not line:
                    raise SynthError("refine: one of the critic's processes has failed; see the run's internal folder")
                elif key.data == 0 and line.startswith(PROGRESS):  # gloo has something to say, too
                    logger.info("%s", line.decode().rstrip())
    return found[0]


class Told:
    """One of those processes, as it sees itself: what it was told, and what it says."""

    def __init__(self) -> None:
        folder, self.rank = json.loads(_line())
        self.folder = Path(folder)

    def wait_to_go(self) -> None:
        """Say that all is ready. From here on the process ends when the run's does."""
        os.write(1, READY)
        if _line() != GO:
            os._exit(1)
        threading.Thread(target=_end_with_the_run, daemon=True).start()

    @staticmethod
    def end(found: Mapping[str, Any]) -> None:
        """Say what was found, and end as it is."""
        os.write(1, DONE + json.dumps(found).encode() + b"\n")
        os._exit(0)


def _line() -> bytes:
    """A line of standard input, and no byte more; the process ends where there is none."""
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(0, 1)):
            os._exit(1)
        line += byte
    return line


def _end_with_the_run() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def join(ranks: Ranks) -> None:
    """Be one of the processes, for good; nothing where there is no other."""
    if ranks.count == 1:
        return
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))  # lo, or lo0
    os.environ |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    dist.init_process_group(
        "nccl" if ranks.accelerator == "gpu" else "gloo",
        init_method=f"file://{ranks.meeting}",
        rank=ranks.rank,
        world_size=ranks.count,
        timeout=PATIENCE,
    )


def strategy_of(ranks: Ranks) -> DDPStrategy | Literal["auto"]:
    """Lightning's strategy: DDP among processes that are there already. Whoever is alone needs none."""
    if ranks.count == 1:
        return "auto"
    return DDPStrategy(
        cluster_environment=_Environment(ranks),
        find_unused_parameters=True,  # a table's generators have a loss without the critic's weights
        broadcast_buffers=False,  # follow from saved measurements, the same everywhere
        timeout=PATIENCE,
    )


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
