"""Defects of privacy, each planted in the product by a context manager that puts everything back.

The only seam is that names are replaced from outside: nothing in the product can switch a defect on. Each function says
what the mistake is; `games.py` says how it is looked for, `suite.py` what catches which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from torch import Tensor

from synth import prepare
from synth.config import Run
from synth.privacy import noise
from synth.privacy.dp_sgd import GhostClipping, PoissonBatches, PrivateBatch, PrivateCritic, SecureStream
from synth.privacy.ledger import Ledger
from synth.privacy.noise import NoiseSource
from synth.privacy.reservations import Reservation
from synth.run_folder import RunFolder
from synth.tables import layout, stages
from synth.tables.count import count_histograms, read_codes
from synth.tables.layout import Layout
from synth.tables.measure import Measurer
from synth.tables.measurements import Measurements
from synth.tables.model import TableModel
from synth.tables.refine import Refinement
from synth.tables.train import Fit, FitSettings

FloatArray = npt.NDArray[np.float64]
Draw = Callable[[NoiseSource, int], FloatArray]


@contextmanager
def nothing() -> Iterator[None]:
    """The honest build."""
    yield


# ---- noise ----


@contextmanager
def _drawing(of_tables: Draw, of_dp_sgd: Draw) -> Iterator[None]:
    """Normals are drawn otherwise, in both streams."""
    with (
        patch.object(NoiseSource, "standard_normal", of_tables),
        patch.object(SecureStream, "standard_normal", of_dp_sgd),
    ):
        yield


@contextmanager
def no_noise() -> Iterator[None]:
    """Exact values are rounded to the grid and called noised."""

    def zeros(self: NoiseSource, count: int) -> FloatArray:
        return np.zeros(count)

    with _drawing(zeros, zeros):
        yield


@contextmanager
def noise_ten_times_too_small() -> Iterator[None]:
    """The noise has a tenth of the scale that is accounted."""
    tables, dp_sgd = NoiseSource.standard_normal, SecureStream.standard_normal
    with _drawing(lambda self, count: tables(self, count) / 10, lambda self, count: dp_sgd(self, count) / 10):  # type: ignore[arg-type]
        yield


@contextmanager
def fixed_seed() -> Iterator[None]:
    """The stream's key is a constant instead of operating-system entropy."""

    def rekey(self: NoiseSource) -> None:
        self._process = noise.os.getpid()
        self._stream = Cipher(AES(bytes(32)), CTR(bytes(16))).encryptor()

    with patch.object(NoiseSource, "_rekey", rekey):
        yield


@contextmanager
def torch_noise() -> Iterator[None]:
    """Noise comes from torch's global generator, which any library may have seeded."""

    def draw(self: NoiseSource, count: int) -> FloatArray:
        return torch.randn(count, dtype=torch.float64).numpy()

    with _drawing(draw, draw):
        yield


@contextmanager
def stream_shared_by_a_fork() -> Iterator[None]:
    """A forked process goes on with its parent's key and counter."""
    with patch.object(noise, "os", SimpleNamespace(getpid=lambda: 1, urandom=noise.os.urandom)):
        yield


# ---- sensitivity ----


@contextmanager
def rows_of_a_person_not_counted() -> Iterator[None]:
    """The sensitivity of a table run is that of one row, whatever a person may bring."""
    honest = layout.plan_table
    with patch.object(layout, "plan_table", lambda **known: honest(**(known | {"max_rows_per_person": 1}))):
        yield


@contextmanager
def contributions_not_bounded() -> Iterator[None]:
    """Everything is counted first, and contributions would be bounded after it."""

    def all_of_them(persons: Any, *, max_rows_per_person: int) -> npt.NDArray[np.bool_]:
        return np.ones(sum(len(batch) for batch in persons), dtype=np.bool_)

    with patch.object(stages, "bound_contributions", all_of_them):
        yield


@contextmanager
def clipping_by_norms_of_zero() -> Iterator[None]:
    """Norms come out as zero, so that nobody is clipped."""

    def zeros(self: GhostClipping, calls: Any, owners: Any, like: Tensor) -> Tensor:
        return torch.zeros(owners.count)

    with patch.object(GhostClipping, "squared_norms", zeros):
        yield


@contextmanager
def _summed(clipped_sum: Callable[..., list[Tensor]]) -> Iterator[None]:
    with patch.object(GhostClipping, "clipped_sum", clipped_sum):
        yield


@contextmanager
def no_clipping() -> Iterator[None]:
    """Gradients are summed as they are."""
    with _summed(_plain_sum):
        yield


@contextmanager
def mean_clipped() -> Iterator[None]:
    """The batch's mean gradient is clipped instead of each person's."""

    def clipped(self: GhostClipping, columns: Sequence[Tensor], persons: Tensor | None = None) -> list[Tensor]:
        rows = len(columns[0])
        total = _plain_sum(self, columns)
        norm = math.sqrt(sum(float(part.square().sum()) for part in total)) / max(1, rows)
        return [part * min(1.0, self.max_grad_norm / max(norm, 1e-30)) for part in total]

    with _summed(clipped):
        yield


@contextmanager
def rows_clipped_one_by_one() -> Iterator[None]:
    """Each row of a person is clipped by itself, so that many rows weigh many times."""
    honest = GhostClipping.clipped_sum
    with _summed(lambda self, columns, persons=None: honest(self, columns, None)):
        yield


def _plain_sum(self: GhostClipping, columns: Sequence[Tensor], persons: Tensor | None = None) -> list[Tensor]:
    return self.weighted_sum(self.calls(columns), torch.ones(len(columns[0])))


# ---- DP-SGD's steps ----


@contextmanager
def shuffled_batches() -> Iterator[None]:
    """A fresh order each epoch, cut into batches of one size (the last is what is left), accounted as Poisson."""
    rng = np.random.default_rng()

    def draw(self: PoissonBatches) -> PrivateBatch:
        people = len(self._ends)
        order = self.__dict__.get("order", ())
        if not len(order):
            order = rng.permutation(people)
        size = math.ceil(people * self._config.sample_rate)
        drawn, self.__dict__["order"] = order[:size], order[size:]
        return PrivateBatch(tuple(column[torch.from_numpy(drawn)] for column in self._columns), None)  # type: ignore[index]

    with patch.object(PoissonBatches, "draw", draw):
        yield


@contextmanager
def empty_batches_skipped() -> Iterator[None]:
    """A step whose batch came out empty is left out, noise and all."""
    honest = PrivateCritic.private_step

    def step(self: PrivateCritic, columns: Sequence[Tensor], **known: Any) -> None:
        if len(columns[0]):
            honest(self, columns, **known)

    with patch.object(PrivateCritic, "private_step", step):
        yield


@contextmanager
def epochs_of_n() -> Iterator[None]:
    """Ten epochs in batches of a hundred, over however many people there are: steps follow from n."""

    def epochs(self: PoissonBatches) -> Iterator[PrivateBatch]:
        for _ in range(math.ceil(len(self._ends) / 10)):
            yield self.draw()

    with patch.object(PoissonBatches, "__iter__", epochs):
        yield


# ---- what the data decide without noise ----


@contextmanager
def data_derived_bounds() -> Iterator[None]:
    """Bounds of numbers are the least and greatest value of the source."""
    honest = RunFolder.run

    def run(self: RunFolder) -> Run:
        asked = honest(self)
        columns = []
        for column in asked.table.columns:
            if column.kind in {"integer", "continuous"}:
                values = pq.read_table(asked.config.source.path, columns=[column.name]).column(0)
                extremes = pc.min_max(values).as_py()
                column = column.model_copy(update={"bounds": (extremes["min"], extremes["max"])})
            columns.append(column)
        return asked.model_copy(update={"declared": asked.table.model_copy(update={"columns": tuple(columns)})})

    with patch.object(RunFolder, "run", run):
        yield


@contextmanager
def exact_class_shares() -> Iterator[None]:
    """The label mix is copied from the data."""
    honest = Measurer.measure

    def exact(self: Measurer) -> Measurements:
        measured = honest(self)
        counts = count_histograms(
            self._read([self._class_key or ""]),
            blocks=[],
            class_key=self._class_key,
            class_of_cell=measured.class_of_cell,
        )
        return replace(measured, class_sizes=counts["class"].astype(np.float64))

    with patch.object(Measurer, "measure", exact):
        yield


@contextmanager
def exact_number_of_rows() -> Iterator[None]:
    """As many synthetic rows as there are real ones."""
    honest = TableModel.save

    def save(self: TableModel, folder: Path) -> None:
        codes = folder.parents[1] / "encoded.arrow"
        with pa.memory_map(str(codes)) as stream:
            rows = pa.ipc.open_file(stream).read_all().num_rows
        honest(replace(self, rows=rows), folder)

    with patch.object(TableModel, "save", save):
        yield


@contextmanager
def steps_from_n() -> Iterator[None]:
    """The generator is trained for a number of steps that follows from the number of rows."""
    honest = stages.fit_settings

    def settings(run: Run, layout: Layout) -> FitSettings:
        return replace(honest(run, layout), steps=_rows_of(run))

    with patch.object(stages, "fit_settings", settings):
        yield


@contextmanager
def noise_planned_from_n() -> Iterator[None]:
    """Before anything is reserved, the noise of the releases is fitted to the number of rows."""
    honest = stages.plan_run

    def plan(run: Run) -> Any:
        privacy = run.config.privacy
        fitted = privacy.model_copy(update={"epsilon": privacy.epsilon * (1 - 1 / (2 + _rows_of(run)))})
        return honest(run.model_copy(update={"config": run.config.model_copy(update={"privacy": fitted})}))

    with patch.object(stages, "plan_run", plan), patch.object(prepare, "plan_run", plan):
        yield


@contextmanager
def best_step_by_private_score() -> Iterator[None]:
    """Of several lengths of training, the one whose rows are nearest to the real ones is kept."""
    honest = stages.fit

    def chosen(measured: Measurements, settings: FitSettings, *, checkpoints: Path) -> Fit:
        candidates = [
            honest(measured, replace(settings, steps=steps), checkpoints=checkpoints / str(steps))
            for steps in (1, 5, 20)
        ]
        return min(candidates, key=lambda fit: _distance(fit, measured, checkpoints.parent / "encoded.arrow"))

    with patch.object(stages, "fit", chosen):
        yield


BAR = 100.0
"""A loss that the few rows of the replayed tables are always below, so that training ends after a step."""


@contextmanager
def critic_stops_by_private_loss() -> Iterator[None]:
    """The critic's training ends as soon as the loss on real rows is small enough."""
    honest = Refinement.training_step

    def step(self: Refinement, batch: PrivateBatch, batch_idx: int) -> None:
        honest(self, batch, batch_idx)
        with torch.no_grad():
            self.__dict__["last_loss"] = float(self.critic.real_losses(batch.columns[0]).sum())

    def start(self: Refinement, batch: PrivateBatch, batch_idx: int) -> int | None:
        return -1 if self.__dict__.get("last_loss", math.inf) < BAR else None  # -1 ends the epoch

    with (
        patch.object(Refinement, "training_step", step),
        patch.object(Refinement, "on_train_batch_start", start),
    ):
        yield


def _distance(fit: Fit, measured: Measurements, codes: Path) -> float:
    """Between the generator's bins, all classes together, and the exact ones."""
    names = fit.encoding.names
    with torch.inference_mode():
        made = fit.members[0].all_points().mean(dim=1)  # [classes, D]
    share = measured.class_sizes / measured.class_sizes.sum()
    shares = share @ made.numpy()
    distance = 0.0
    for name in names:
        place = fit.encoding.place(name)
        exact = np.zeros(place.stop - place.start)
        for batch in read_codes(codes, [f"cells:{name}"]):
            np.add.at(exact, measured.bin_of_cell[name][batch[f"cells:{name}"]], 1.0)
        distance += float(np.abs(shares[place] - exact / exact.sum()).sum())
    return distance


def _rows_of(run: Run) -> int:
    return int(pq.read_metadata(run.config.source.path).num_rows)


# ---- the ledger ----


@contextmanager
def ledger_skipped(*steps: str) -> Iterator[None]:
    """The named steps answer as if all were well and write nothing."""
    known_runs: dict[str, Reservation] = {}

    def reserve(self: Ledger, **known: Any) -> Reservation:
        made = Reservation(
            **{k: known[k] for k in ("run_id", "population", "dataset", "delta")},
            time="",
            events=tuple(known["events"]),
        )
        known_runs[made.run_id] = replace(made, spent=made.events)
        return made

    answers: dict[str, Callable[..., Any]] = {
        "reserve": reserve,
        "spend": lambda self, run_id, event: None,
        "settle": lambda self, run_id: SimpleNamespace(hash="0" * 64),
        "population": lambda self, name: SimpleNamespace(epsilon=1.0, delta=1e-5, overlaps=(), cap=None, candidates=1),
        "run": lambda self, run_id: known_runs.get(run_id),
        "settlement": lambda self, run_id: None,
    }
    with ExitStack() as stack:
        for step in steps:
            stack.enter_context(patch.object(Ledger, step, answers[step]))
        yield
