"""The score on held-out people: how far one person moves it, and whether its interval covers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from synth.evaluate.held_out import Accuracy, Classifier, accuracy_of, held_out_facts, sampling_error
from synth.schema import Schema
from synth.tables.codec import Codec, codecs_of

NAMES = ("age", "sex", "city", "stage", "died")
Cells = dict[str, np.ndarray]
MakeCells = Callable[[int, int], Cells]


@pytest.fixture(scope="module")
def codecs(schema_of: Callable[..., Schema]) -> dict[str, Codec]:
    return codecs_of(schema_of(*NAMES, target="died"))


@pytest.fixture(scope="module")
def cells_of(codecs: dict[str, Codec]) -> MakeCells:
    """`cells_of(rows, seed)`: codes of cells, in which death follows from age and sex."""

    def draw(rows: int, seed: int) -> Cells:
        rng = np.random.default_rng(seed)
        cells = {f"cells:{name}": rng.integers(0, codec.size, rows, np.int32) for name, codec in codecs.items()}
        risk = 1 / (1 + np.exp(-(cells["cells:age"] - 50) / 8 - 2 * cells["cells:sex"]))
        return cells | {"cells:died": (rng.random(rows) < risk).astype(np.int32)}

    return draw


@pytest.fixture(scope="module")
def classifier(codecs: dict[str, Codec], cells_of: MakeCells) -> Classifier:
    return Classifier(batches(cells_of(1500, 1), 700), codecs, target="died", class_of_cell=np.arange(2))


def batches(cells: Cells, size: int = 10_000) -> Iterator[Cells]:
    for start in range(0, len(cells["cells:died"]), size):
        yield {key: column[start : start + size] for key, column in cells.items()}


def rows_of(cells: Cells, chosen: Any) -> Cells:
    return {name: column[chosen] for name, column in cells.items()}


class TestSensitivity:
    M = 3

    def test_a_person_more_or_less_moves_the_pair_by_at_most_m(
        self, classifier: Classifier, cells_of: MakeCells
    ) -> None:
        """Every person of 40 with 3 rows each, removed in turn, whatever batches the rows come in."""
        people = cells_of(40 * self.M, 2)
        whole = classifier.count(batches(people))
        assert whole.sum() == 40 * self.M
        moved = set()
        for person, size in [*itertools.product(range(40), [10_000]), (0, 7), (39, 7)]:
            without = rows_of(people, np.arange(40 * self.M) // self.M != person)
            move = whole - classifier.count(batches(without, size))
            assert np.linalg.norm(move) <= self.M and np.abs(move).sum() == self.M
            moved.add(tuple(move))
        assert (self.M, 0) in moved and any(wrong for _, wrong in moved)  # the bound is met, so it cannot be lowered

    def test_replacing_a_person_moves_it_by_at_most_root_two_m(
        self, classifier: Classifier, cells_of: MakeCells
    ) -> None:
        people, strangers = cells_of(40 * self.M, 2), cells_of(40 * self.M, 3)
        whole = classifier.count(batches(people))
        for person in range(40):
            theirs = np.arange(40 * self.M) // self.M == person
            other = {name: np.where(theirs, strangers[name], people[name]) for name in people}
            move = whole - classifier.count(batches(other))
            assert np.linalg.norm(move) <= math.sqrt(2) * self.M and move.sum() == 0

    def test_a_prediction_depends_on_its_own_row_alone(self, classifier: Classifier, cells_of: MakeCells) -> None:
        people = cells_of(300, 4)
        together = classifier.predict(people)
        order = np.random.default_rng(0).permutation(300)
        assert (classifier.predict(rows_of(people, order)) == together[order]).all()
        assert [int(classifier.predict(rows_of(people, [i]))[0]) for i in range(9)] == together[:9].tolist()


class TestTheClassifier:
    def test_learns(self, classifier: Classifier, cells_of: MakeCells) -> None:
        right, wrong = classifier.count(batches(cells_of(4000, 5), 1000))
        assert right + wrong == 4000 and right / 4000 > 0.8
        assert classifier.training_rows == 1500

    def test_takes_levels_and_gaps_that_it_has_not_seen(self, codecs: dict[str, Codec], cells_of: MakeCells) -> None:
        cells = cells_of(800, 6)
        seen = rows_of(cells, cells["cells:city"] == 0)
        found = Classifier([seen], codecs, target="died", class_of_cell=np.arange(2)).predict(cells_of(500, 7))
        assert set(found.tolist()) == {0, 1}

    def test_of_more_classes_than_two(self, codecs: dict[str, Codec], cells_of: MakeCells) -> None:
        cells = cells_of(900, 8)
        tested = cells_of(300, 9)
        for table in (cells, tested):
            table["cells:stage"] = np.minimum(table["cells:age"] // 34, 2)
        made = Classifier([cells], codecs, target="stage", class_of_cell=np.arange(3))
        right, wrong = made.count(batches(tested))
        assert right + wrong == 300 and right >= 290

    def test_of_a_numeric_target_predicts_its_classes(self, codecs: dict[str, Codec], cells_of: MakeCells) -> None:
        halves = (np.arange(codecs["age"].size) >= 50).astype(np.int64)
        made = Classifier([cells_of(900, 10)], codecs, target="age", class_of_cell=halves)
        assert set(made.predict(cells_of(300, 11)).tolist()) == {0, 1}
        assert made.count(batches(cells_of(300, 11))).sum() == 300

    @pytest.mark.parametrize("rows", [1, 2, 3, 40])
    def test_of_few_rows_and_columns_that_are_missing_throughout(
        self, schema_of: Callable[..., Schema], rows: int
    ) -> None:
        names = ("income", "city", "smoker", "seen", "died")
        odd = codecs_of(schema_of(*names, target="died"))
        for seed, gone in itertools.product(range(4), [(), ("income", "city"), names[:-1]]):
            rng = np.random.default_rng([rows, seed])
            cells = {f"cells:{name}": rng.integers(0, codec.size, rows, np.int32) for name, codec in odd.items()}
            cells |= {f"cells:{name}": np.full(rows, odd[name].missing, np.int32) for name in gone}
            made = Classifier([cells], odd, target="died", class_of_cell=np.arange(2))
            tested = {f"cells:{name}": rng.integers(0, codec.size, 25, np.int32) for name, codec in odd.items()}
            assert made.count([tested]).sum() == 25
            if len(gone) == 4:  # nothing to tell by: the usual class
                assert set(made.predict(tested).tolist()) == {int(np.bincount(cells["cells:died"]).argmax())}

    def test_of_one_class_alone_names_it(self, codecs: dict[str, Codec], cells_of: MakeCells) -> None:
        """Which classes the synthetic rows have is no reason to fail: it would tell nothing, and help nobody."""
        cells = cells_of(50, 12)
        only = Classifier([rows_of(cells, cells["cells:died"] == 1)], codecs, target="died", class_of_cell=np.arange(2))
        assert set(only.predict(cells).tolist()) == {1}

    def test_on_nobody(self, classifier: Classifier, cells_of: MakeCells) -> None:
        assert classifier.count(iter([])).tolist() == [0, 0]
        assert classifier.count([rows_of(cells_of(1, 1), slice(0))]).tolist() == [0, 0]


class TestTheInterval:
    @given(st.floats(-200, 3000), st.floats(-200, 3000), st.floats(0.1, 300), st.sampled_from([0.5, 0.8, 0.95, 0.999]))
    def test_holds_what_the_noise_does_not_exclude(
        self, correct: float, wrong: float, noise: float, confidence: float
    ) -> None:
        """A loop over every share: inside where the pair is within its quantile of it, outside where it is not."""
        found = accuracy_of(correct, wrong, noise, confidence=confidence)
        assert 0 <= found.low <= found.high <= 1
        quantile = norm.ppf(0.5 + confidence / 2)
        for p in np.linspace(0, 1, 101):
            away = abs(correct * (1 - p) - wrong * p) / (noise * math.hypot(p, 1 - p))
            if away < quantile - 1e-6:
                assert found.low - 1e-9 <= p <= found.high + 1e-9
            elif away > quantile + 1e-6 and found.value is not None:
                assert not found.low + 1e-9 < p < found.high - 1e-9
        if found.value is not None:
            assert found.low <= found.value <= found.high

    @pytest.mark.parametrize(("right", "wrong"), [(850, 150), (30, 10), (5, 0), (0, 40), (2, 3), (3999, 1)])
    def test_covers_the_true_share(self, right: int, wrong: int) -> None:
        """Of the noise alone, over draws from a seed: never below 95 % but for the counting error of 4,000 draws."""
        rng = np.random.default_rng([right, wrong])
        noised = rng.normal([right, wrong], 6.0, (4000, 2))
        found = [accuracy_of(*pair, 6.0) for pair in noised]
        truth = right / (right + wrong)
        covered = np.mean([one.low <= truth <= one.high for one in found])
        assert covered > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 4000)
        if right + wrong > 500 and wrong > 100:
            assert covered < 0.97  # and it is no wider than it has to be

    def test_by_hand(self) -> None:
        """With little noise the width is that of the delta method: z·σ·√(p² + (1 − p)²)/n."""
        found = accuracy_of(800_000.0, 200_000.0, 10.0)
        half = 1.959964 * 10 * math.hypot(0.8, 0.2) / 1_000_000
        assert found.value == 0.8
        assert (0.8 - found.low, found.high - 0.8) == (pytest.approx(half, rel=1e-4), pytest.approx(half, rel=1e-4))

    def test_says_nothing_where_the_noise_drowns_it(self) -> None:
        for pair in ((-5.0, 3.0), (0.0, 0.0), (1.0, 0.2), (-300.0, -200.0)):
            assert accuracy_of(*pair, 4.0) == Accuracy(None, 0.0, 1.0)
        assert sampling_error(Accuracy(None, 0.0, 1.0), -2.0, 1) is None

    def test_the_sampling_error_is_that_of_people(self) -> None:
        one = sampling_error(accuracy_of(750.0, 250.0, 0.1), 1000.0, 1)
        assert one == pytest.approx(math.sqrt(0.75 * 0.25 / 1000))
        assert sampling_error(accuracy_of(750.0, 250.0, 0.1), 1000.0, 4) == pytest.approx(2 * one)


def test_the_facts_follow_from_noised_numbers_alone() -> None:
    facts = held_out_facts(
        81.5, 19.25, noise_scale=2.0, holdout=0.1, target="died", class_sizes=np.array([30.0, 70.0]),
        training_rows=500, max_rows_per_person=1,
    )  # fmt: skip
    assert facts.accuracy == pytest.approx(81.5 / 100.75) and facts.low < facts.accuracy < facts.high
    assert (facts.base_rate, facts.holdout, facts.training_rows) == (0.7, 0.1, 500)
    drowned = held_out_facts(
        1.0, -2.0, noise_scale=2.0, holdout=None, target="died", class_sizes=np.array([1.0]), training_rows=5,
        max_rows_per_person=1,
    )  # fmt: skip
    assert (drowned.accuracy, drowned.sampling_error, drowned.low, drowned.high) == (None, None, 0.0, 1.0)
