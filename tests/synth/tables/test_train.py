"""The fit: its loss, its checkpoints, and that it agrees with what was measured."""

from __future__ import annotations

import io
import itertools
import math
import pickletools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors import safe_open
from torch.utils.data import DataLoader

from synth.config import Synthesizer
from synth.schema import Schema
from synth.tables import train
from synth.tables.checkpoint import SafetensorsCheckpointIO
from synth.tables.class_pull import ClassPull
from synth.tables.generator import Generator
from synth.tables.measurements import Measurements
from synth.tables.model import new_generator
from synth.tables.targets import Encoding, Targets, encoding_of, targets_of
from synth.tables.train import Fit, FitSettings, MomentFit, fit, settings_of, start_from_one_ways
from synth.tables.triple_targets import triple_targets_of

SETTINGS = FitSettings(
    members=2, steps=120, latent_points=16, hidden_size=16, learning_rate=1e-2, accelerator="cpu", threads=1
)


@pytest.fixture(scope="module")
def measured(toy_run: Any, schema_of: Callable[..., Schema]) -> Measurements:
    run = toy_run(schema_of("sex", "city", "smoker", "died", target="died"), epsilon=8.0)
    rng = np.random.default_rng(0)
    people = []
    for i in range(600):
        died = rng.random() < 0.25
        sex = "male" if rng.random() < (0.9 if died else 0.4) else "female"
        city = "Rome" if rng.random() < (0.8 if sex == "male" else 0.1) else "Oslo"
        smoker = None if rng.random() < 0.3 else str(rng.random() < 0.5).lower()
        people.append(run.codes_of((sex, city, smoker, str(died).lower()), i))
    measured: Measurements = run.measure(people)[1]
    return measured


@pytest.fixture(scope="module")
def encoding(measured: Measurements) -> Encoding:
    return encoding_of(measured)


@pytest.fixture(scope="module")
def targets(measured: Measurements, encoding: Encoding) -> Targets:
    some = replace(measured, pairs=dict(list(measured.pairs.items())[:2]))
    return targets_of(some, encoding)


@pytest.fixture(scope="module")
def fitted(measured: Measurements, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fit, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return fit(measured, SETTINGS, checkpoints=folder), folder


def small(encoding: Encoding, classes: int = 2, seed: int = 0) -> Generator:
    return new_generator(
        classes=classes, sizes=encoding.sizes, latent_points=6, latent_size=4, hidden_size=8, seed=seed
    )


def slow_loss(shares: np.ndarray, targets: Targets, *, with_pseudo: bool) -> float:
    """The loss by its definition, one cell at a time."""
    classes, points, width = shares.shape
    sizes = targets.class_sizes.double().numpy()
    loss = 0.0

    def add(precision: Any, model: float, value: Any) -> float:
        return float(precision) * (model - float(value)) ** 2

    for a in range(width):
        for c in range(classes):
            model = sizes[c] / points * sum(shares[c, k, a] for k in range(points))
            loss += add(targets.one_way_precision[c, a], model, targets.one_way[c, a])
            if with_pseudo:
                pull = targets.class_pull
                whole = sum(float(sizes[d]) / points * shares[d, :, a].sum() for d in range(classes))
                loss += add(pull.precision[c, a], model - float(pull.part[c]) * whole, pull.difference[c, a])
        for b in range(width):
            by_class = [
                sizes[c] / points * sum(shares[c, k, a] * shares[c, k, b] for k in range(points))
                for c in range(classes)
            ]
            if targets.pairs is not None and targets.pairs_precision is not None:
                for c in range(classes):
                    loss += add(targets.pairs_precision[c, a, b], by_class[c], targets.pairs[c, a, b])
            loss += add(targets.pairs_summed_precision[a, b], sum(by_class), targets.pairs_summed[a, b])
            if with_pseudo:
                loss += add(targets.pseudo_precision[a, b], sum(by_class), targets.pseudo[a, b])
    members: dict[int, list[int]] = {}
    for bin_, group in zip(targets.triples.bins.tolist(), targets.triples.group.tolist(), strict=True):
        members.setdefault(group, []).append(bin_)
    first = np.cumsum([0, *targets.triples.sizes])
    for block in targets.triples.blocks:
        thirds = [group for j in block.thirds for group in range(first[j], first[j + 1])]
        for x, y, z in np.ndindex(*block.value.shape):
            groups = (first[block.first] + x, first[block.second] + y, thirds[z])
            model = sum(
                sizes[c] / points * math.prod(shares[c, k, bin_] for bin_ in cell)
                for c, k in itertools.product(range(classes), range(points))
                for cell in itertools.product(*(members[group] for group in groups))
            )
            loss += add(block.precision[z], model, block.value[x, y, z])
    return loss


@pytest.fixture(scope="module")
def dense(measured: Measurements, encoding: Encoding) -> Targets:
    """Targets with a value and a precision in every cell of every kind, in double precision."""
    rng = torch.Generator().manual_seed(0)
    width = encoding.width
    shapes = {"one_way": (2, width), "pairs": (2, width, width), "pairs_summed": (width, width)}
    values = {name: 50 * torch.rand(shape, generator=rng).double() for name, shape in shapes.items()}
    values |= {f"{name}_precision": torch.rand(shape, generator=rng).double() for name, shape in shapes.items()}
    pseudo = torch.rand(2, width, width, generator=rng).double()
    sizes = torch.tensor([70.0, 30.0]).double()
    triples = triple_targets_of(measured, encoding.names, encoding.sizes)
    assert triples.cells
    triples = replace(
        triples,
        blocks=tuple(replace(b, value=b.value.double(), precision=b.precision.double()) for b in triples.blocks),
    )
    pull = torch.rand(2, 2, width, generator=rng).double()
    return Targets(
        class_sizes=sizes,
        pseudo=50 * pseudo[0],
        pseudo_precision=pseudo[1],
        class_pull=ClassPull(sizes / sizes.sum(), 9 * pull[0], pull[1]),
        triples=triples,
        cells=1,
        **values,
    )


class TestLoss:
    @pytest.mark.parametrize("with_pseudo", [True, False])
    @pytest.mark.parametrize("by_class", [True, False])
    def test_equals_a_slow_loop(self, encoding: Encoding, dense: Targets, with_pseudo: bool, by_class: bool) -> None:
        chosen = dense if by_class else replace(dense, pairs=None, pairs_precision=None)
        shares = small(encoding).all_points().detach().double()
        found = float(chosen.loss(shares, with_pseudo=with_pseudo))
        assert found == pytest.approx(slow_loss(shares.numpy(), chosen, with_pseudo=with_pseudo), rel=1e-9)

    @pytest.mark.parametrize("with_pseudo", [True, False])
    def test_its_gradient_equals_finite_differences(
        self, encoding: Encoding, dense: Targets, with_pseudo: bool
    ) -> None:
        shares = small(encoding).all_points().detach().double().requires_grad_()
        dense.loss(shares, with_pseudo=with_pseudo).backward()
        assert shares.grad is not None
        rng = np.random.default_rng(0)
        for _ in range(25):
            at = tuple(int(rng.integers(n)) for n in shares.shape)
            step = 1e-5
            values = []
            for sign in (1, -1):
                moved = shares.detach().clone()
                moved[at] += sign * step
                values.append(float(dense.loss(moved, with_pseudo=with_pseudo)))
            slope = (values[0] - values[1]) / (2 * step)
            assert float(shares.grad[at]) == pytest.approx(slope, rel=1e-5, abs=1e-4)

    def test_is_zero_when_the_model_is_what_was_measured(self, encoding: Encoding, dense: Targets) -> None:
        shares = small(encoding).all_points().detach().double()
        sizes = dense.class_sizes
        weighted = shares * (sizes / shares.shape[1])[:, None, None]
        gram = weighted.transpose(1, 2) @ shares
        counts = shares.mean(dim=1) * sizes[:, None]
        difference = counts - counts.sum(dim=0) * dense.class_pull.part[:, None]
        perfect = replace(
            dense,
            one_way=counts,
            class_pull=replace(dense.class_pull, difference=difference),
            pairs=gram,
            pairs_summed=gram.sum(dim=0),
            pseudo=gram.sum(dim=0),
            triples=dense.triples.held(shares, sizes),
        )
        assert float(perfect.loss(shares, with_pseudo=True)) == pytest.approx(0, abs=1e-12)


class TestStart:
    def test_a_new_generator_starts_near_the_measured_one_ways(
        self, measured: Measurements, encoding: Encoding
    ) -> None:
        generator = small(encoding)
        with torch.no_grad():
            generator.head.weight.zero_()
            generator.head.bias.zero_()
        start_from_one_ways(generator, measured, encoding)
        shares = generator.all_points().detach().numpy().mean(axis=1)
        for name in encoding.names:
            assert shares[:, encoding.place(name)] == pytest.approx(measured.profiles[name], abs=1e-3)


class TestFit:
    def test_members_of_the_right_shape(self, fitted: tuple[Fit, Path], encoding: Encoding) -> None:
        result, _ = fitted
        assert (len(result.members), result.encoding) == (2, encoding)
        assert {member.latent_points for member in result.members} == {16}
        assert not any(member.training for member in result.members)
        banks = [member.get_buffer("bank") for member in result.members]
        assert not torch.equal(*banks)

    def test_agrees_with_what_was_measured(self, fitted: tuple[Fit, Path], measured: Measurements) -> None:
        result, _ = fitted
        targets = targets_of(measured, result.encoding)
        with torch.inference_mode():
            shares = torch.cat([member.all_points() for member in result.members], dim=1)
            untrained = small(result.encoding).all_points()
        assert result.chi == pytest.approx(float(targets.loss(shares)) / targets.cells, rel=1e-4)
        assert result.chi < 4
        assert result.chi < 0.1 * float(targets.loss(untrained)) / targets.cells

    def test_learns_that_columns_go_together(self, fitted: tuple[Fit, Path], measured: Measurements) -> None:
        result, _ = fitted
        with torch.inference_mode():
            shares = torch.cat([member.all_points() for member in result.members], dim=1).double().numpy()
        share = measured.class_sizes / measured.class_sizes.sum()
        sex, city = result.encoding.place("sex"), result.encoding.place("city")
        points = shares.shape[1]
        pair = np.einsum("c,cka,ckb->ab", share, shares[:, :, sex], shares[:, :, city]) / points
        apart = np.einsum("a,b->ab", pair.sum(axis=1), pair.sum(axis=0))
        male, rome = measured.bin_of_cell["sex"][1], measured.bin_of_cell["city"][0]
        assert pair[male, rome] > apart[male, rome] + 0.08

    def test_gives_the_threads_back(self, measured: Measurements, tmp_path: Path) -> None:
        threads = torch.get_num_threads()
        fit(measured, replace(SETTINGS, members=1, steps=2, threads=threads + 1), checkpoints=tmp_path)
        assert torch.get_num_threads() == threads

    def test_refuses_a_table_without_columns(self, measured: Measurements, tmp_path: Path) -> None:
        empty = replace(measured, bin_of_cell={}, one_way={}, pairs={})
        with pytest.raises(ValueError, match=r"nothing to fit|need at least|empty"):
            fit(empty, SETTINGS, checkpoints=tmp_path)


class TestSettings:
    def test_follow_from_config_epsilon_and_schema(self) -> None:
        few, many = (settings_of(Synthesizer(), epsilon=epsilon, classes=2) for epsilon in (1.0, 5.0))
        assert (few.members, few.hidden_size, few.threads) == (Synthesizer().members, Synthesizer().hidden_size, 1)
        assert few.steps <= many.steps
        assert few.latent_points <= many.latent_points
        assert settings_of(Synthesizer(), epsilon=1.0, classes=200).latent_points < few.latent_points
        assert settings_of(Synthesizer(), epsilon=0.5, classes=2).learning_rate < few.learning_rate

    def test_a_config_value_wins(self) -> None:
        chosen = Synthesizer(steps=7, members=1, latent_points=9, hidden_size=8, learning_rate=0.5, threads=2)
        settings = settings_of(chosen, epsilon=1.0, classes=2)
        assert settings == FitSettings(1, 7, 9, 8, 0.5, "auto", 2)


PLAIN = {"epoch": 3, "loops": {"fit": [1, 2.5, None, True]}, "betas": (0.9, (0.99,)), "names": {1: "a", "b": {}}}


class TestCheckpoints:
    def test_round_trip(self, tmp_path: Path) -> None:
        state = {**PLAIN, "weights": {"a": torch.arange(6).view(2, 3), "b": torch.tensor(1.5, dtype=torch.float64)}}
        io_ = SafetensorsCheckpointIO()
        io_.save_checkpoint(state, tmp_path / "last.ckpt")
        loaded = io_.load_checkpoint(tmp_path / "last.ckpt")
        weights = loaded.pop("weights")
        assert loaded == PLAIN
        assert [torch.equal(weights[k], state["weights"][k]) for k in ("a", "b")] == [True, True]
        assert weights["b"].dtype == torch.float64
        io_.remove_checkpoint(tmp_path / "last.ckpt")
        io_.remove_checkpoint(tmp_path / "last.ckpt")
        assert list(tmp_path.iterdir()) == []

    def test_without_a_tensor(self, tmp_path: Path) -> None:
        SafetensorsCheckpointIO().save_checkpoint(PLAIN, tmp_path / "a")
        assert SafetensorsCheckpointIO().load_checkpoint(tmp_path / "a") == PLAIN

    @pytest.mark.parametrize("value", [object(), {1, 2}, lambda: 1, b"bytes", np.float64(1).astype(object)])
    def test_what_is_not_plain_is_refused(self, tmp_path: Path, value: Any) -> None:
        if isinstance(value, float):
            value = np.array([1])
        with pytest.raises(TypeError, match="a checkpoint holds a"):
            SafetensorsCheckpointIO().save_checkpoint({"state": [value]}, tmp_path / "a")

    def test_no_pickle_is_written(self, encoding: Encoding, targets: Targets, tmp_path: Path) -> None:
        module = MomentFit(small(encoding), targets, steps=10, learning_rate=1e-2, seed=1)
        trainer = _trainer(tmp_path, 10)
        trainer.fit(module, _steps(10))
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert files
        for path in files:
            content = path.read_bytes()
            assert not content.startswith((b"PK", b"\x80"))
            with pytest.raises((ValueError, IndexError)):
                list(pickletools.genops(io.BytesIO(content)))
            with safe_open(str(path), framework="pt") as file:
                assert list(file.keys())
            assert path.stat().st_mode & 0o077 == 0

    def test_a_fit_goes_on_where_it_stopped(self, encoding: Encoding, targets: Targets, tmp_path: Path) -> None:
        def module() -> MomentFit:
            return MomentFit(small(encoding), targets, steps=20, learning_rate=1e-2, seed=1)

        whole = module()
        _trainer(tmp_path / "whole", 20).fit(whole, _steps(20))
        trainer = _trainer(tmp_path / "parts", 10)
        trainer.fit(module(), _steps(20))
        trainer.save_checkpoint(tmp_path / "half.ckpt")
        rest = module()
        resumed = _trainer(tmp_path / "parts", 20)
        warnings.filterwarnings("ignore", message=".*resuming from a checkpoint that ended before the epoch ended.*")
        resumed.fit(rest, _steps(20), ckpt_path=str(tmp_path / "half.ckpt"))
        assert resumed.global_step == 20
        for name, value in whole.generator.state_dict().items():
            assert torch.allclose(rest.generator.state_dict()[name], value, atol=1e-5), name

    @pytest.mark.parametrize("step", [30, 60], ids=["between checkpoints", "after the last"])
    def test_a_fit_that_died_ends_as_if_it_had_not(
        self, measured: Measurements, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: int
    ) -> None:
        """Weights, thinned noise and the step that was best: all of it is taken up from the last checkpoint."""
        seeds = iter(range(1, 100))
        monkeypatch.setattr("secrets.randbits", lambda _: next(seeds))
        monkeypatch.setattr(train, "CHECKPOINT_EVERY", 20)
        settings = replace(SETTINGS, members=2, steps=60)
        whole = fit(measured, settings, checkpoints=tmp_path / "whole")

        seeds = iter(range(1, 100))
        real, member = MomentFit.on_train_batch_end, 0

        def dies(self: MomentFit, *batch: Any) -> None:
            nonlocal member
            member += self.global_step == 1
            if (member, self.global_step) == (2, step):
                raise RuntimeError
            real(self, *batch)

        with monkeypatch.context() as patch, pytest.raises(RuntimeError):
            patch.setattr(MomentFit, "on_train_batch_end", dies)
            fit(measured, settings, checkpoints=tmp_path / "parts")
        assert {path.name for path in (tmp_path / "parts").rglob("*.ckpt")} == {train.LAST, train.FITTED}
        taken: list[int] = []

        def counts(self: MomentFit, *batch: Any) -> None:
            taken.append(self.global_step)
            real(self, *batch)

        with monkeypatch.context() as patch:
            patch.setattr(MomentFit, "on_train_batch_end", counts)
            resumed = fit(measured, settings, checkpoints=tmp_path / "parts")
        assert taken == list(range(step // 20 * 20 + 1, 61))
        assert resumed.chi == pytest.approx(whole.chi, rel=1e-4)
        for one, other in zip(resumed.members, whole.members, strict=True):
            for name, value in one.state_dict().items():
                assert torch.allclose(other.state_dict()[name], value, atol=1e-5), name
        assert len(list((tmp_path / "parts").rglob("*"))) == 6  # two folders of two files: no version of any

    def test_the_fit_itself_leaves_no_other_file(self, fitted: tuple[Fit, Path]) -> None:
        _, folder = fitted
        for path in folder.rglob("*"):
            if path.is_file():
                SafetensorsCheckpointIO().load_checkpoint(path)


def _steps(steps: int) -> Any:
    return DataLoader(range(steps), batch_size=None)  # type: ignore[arg-type]


def _trainer(folder: Path, steps: int) -> pl.Trainer:
    return pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        plugins=[SafetensorsCheckpointIO()],
        enable_model_summary=False,
        enable_progress_bar=False,
        gradient_clip_val=1.0,
        callbacks=[pl.callbacks.ModelCheckpoint(dirpath=folder, every_n_train_steps=5)],
    )


@pytest.fixture(autouse=True)
def lightning_is_quiet() -> Iterator[None]:
    """What Lightning itself warns of in a fit whose batches are step numbers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*number of training batches.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)
        yield
