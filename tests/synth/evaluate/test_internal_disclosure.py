"""The attacks on tables where the truth is known: planted leaks are found, independent rows are not flagged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from synth.evaluate.internal.attacks import attribute_inference, in_common, linkability
from synth.evaluate.internal.copies import copies, copies_within, near_copies
from synth.evaluate.internal.disclosure import disclosure
from synth.evaluate.internal.membership import membership, promised_curve
from synth.evaluate.internal.nearest import Space
from synth.evaluate.internal.rows import Rows, fingerprints, is_ordered
from synth.evaluate.internal.singling_out import (
    Condition,
    matches,
    several_column_predicates,
    single_column_predicates,
    singling_out,
)

Draw = Callable[[int, int], np.ndarray]
ROWS = 600


@pytest.fixture(scope="module")
def tables(people: Draw) -> dict[str, np.ndarray]:
    """Training, held-out and independent synthetic rows, and synthetic rows of which a tenth are copies."""
    training, held_out, independent = (people(ROWS, seed) for seed in (1, 2, 3))
    planted = independent.copy()
    planted[:: ROWS // 60] = training[100:160]
    return {"training": training, "held_out": held_out, "independent": independent, "planted": planted}


class TestWhole:
    """Copied training rows planted in the output are flagged; independent rows are not."""

    def report(self, tables: Any, name: str, codecs: Any, rows_of: Callable[..., Rows], **changes: Any) -> Any:
        held, training = rows_of(tables["held_out"]), rows_of(tables["training"])
        inputs = {"real": held, "synthetic": rows_of(tables[name]), "training": training} | changes
        return disclosure(**inputs, codecs=codecs, mu=None, rng=np.random.default_rng(0))

    def test_planted_copies_are_flagged(self, tables: Any, codecs: Any, rows_of: Callable[..., Rows]) -> None:
        found = self.report(tables, "planted", codecs, rows_of)
        assert found.copies.alarm and found.near_copies.alarm
        assert found.copies.copied == found.copies.synthetic_rows == 60
        assert found.copies.by_chance == 0
        assert found.membership.attacks[0].area.low > 0.5

    def test_independent_rows_are_not(self, tables: Any, codecs: Any, rows_of: Callable[..., Rows]) -> None:
        found = self.report(tables, "independent", codecs, rows_of)
        assert not found.copies.alarm and not found.near_copies.alarm
        assert not any(attack.alarm for attack in found.membership.attacks)
        assert not any(risk.alarm for risk in (*found.risks, *found.inference))
        assert {risk.name for risk in found.risks} == {
            "singling out, one column",
            "singling out, 4 columns",
            "linkability",
        }
        assert {risk.name for risk in found.inference} == set(codecs)

    @pytest.mark.parametrize(("name", "alarm"), [("planted", True), ("independent", False)])
    def test_without_training_rows(
        self, tables: Any, codecs: Any, rows_of: Callable[..., Rows], name: str, alarm: bool
    ) -> None:
        """One table of real rows: its halves stand for learned and held-out rows."""
        found = self.report(tables, name, codecs, rows_of, real=rows_of(tables["training"]), training=None)
        assert found.copies.alarm is alarm
        assert found.left_out is not None and found.membership is None and found.risks == ()


class TestCopies:
    def test_only_rows_that_occur_once_count(self) -> None:
        training, held_out = np.array([1, 2, 3, 3, 9], np.uint64), np.array([4, 5, 5, 9], np.uint64)
        found = copies(np.array([1, 1, 2, 3, 4, 5, 9, 77], np.uint64), training, held_out)
        assert (found.copied, found.by_chance, found.synthetic_rows) == (2, 1, 3)
        assert found.share == 5 / 9

    def test_larger_training_tables_are_not_suspected(self, people: Draw) -> None:
        """Of rows in a coarse space many occur by chance, in the larger table more often."""
        coarse = [fingerprints(people(rows, seed)[:, [0, 2, 3]]) for rows, seed in ((900, 1), (100, 2), (900, 3))]
        found = copies(coarse[2], coarse[0], coarse[1])
        assert found.copied > 3 * found.by_chance and not found.alarm

    def test_few_held_out_rows_suffice_where_people_never_coincide(self) -> None:
        """Thirty copies: the odds of 4 to 1 alone would leave a chance of 0.8 ** 30, about 1 in 800."""
        pool = np.arange(400, dtype=np.uint64)
        training, held_out = pool[:320], pool[320:]
        fake = np.arange(1000, 1400, dtype=np.uint64)
        fake[:20] = training[:20]
        found = copies(fake, training, held_out)
        assert found.p_value == pytest.approx(2 * (320 * 400 / (320 * 400 + 400 * 399 / 2)) ** 20)
        fake[20:30] = training[20:30]
        assert copies(fake, training, held_out).alarm
        assert copies(np.arange(1000, 1400, dtype=np.uint64), training, held_out).p_value == 1.0

    def test_common_rows_are_no_copies(self) -> None:
        """A table of few distinct rows: everything occurs in both halves."""
        rng = np.random.default_rng(0)
        real, fake = rng.integers(0, 40, 3000).astype(np.uint64), rng.integers(0, 40, 3000).astype(np.uint64)
        assert not copies_within(fake, real, rng=rng).alarm

    def test_slightly_changed_copies_are_near(self, tables: Any, codecs: Any) -> None:
        shifted = tables["planted"].copy()
        shifted[:, 4] += 1  # a day
        exact = copies(*(fingerprints(tables[n]) for n in ("training", "held_out")), fingerprints(shifted))
        found = near_copies(shifted, tables["training"], tables["held_out"], codecs, probes=ROWS)
        assert found is not None
        assert exact.copied == 0 and found[0].alarm
        for bars in (found[1].synthetic_to_training, found[1].synthetic_to_held_out, found[1].held_out_to_training):
            assert sum(bars) == pytest.approx(1)

    def test_too_few_rows_to_say(self, tables: Any, codecs: Any) -> None:
        few = {name: table[:10] for name, table in tables.items()}
        assert near_copies(few["planted"], few["training"], few["held_out"], codecs, probes=10) is None
        assert membership(few["training"], few["held_out"], few["planted"], codecs, most=10, mu=None) is None


class TestNearest:
    def test_by_a_loop(self, tables: Any, codecs: Any) -> None:
        space = Space.of(tables["independent"], codecs)
        a, b = space.points(tables["training"][:20]), space.points(tables["independent"][:30])
        ordered = is_ordered(codecs)

        def gap(x: np.ndarray, y: np.ndarray) -> float:
            return sum(min(1, abs(p - q)) if line else float(p != q) for p, q, line in zip(x, y, ordered, strict=True))

        expected = np.array([[gap(x, y) for y in b] for x in a])
        distance, index = space.nearest(a, b, k=3)
        np.testing.assert_allclose(distance, np.sort(expected, axis=1)[:, :3], atol=1e-5)
        np.testing.assert_allclose(np.take_along_axis(expected, index, axis=1), distance, atol=1e-5)

    def test_ranks_and_missing_values(self, codecs: Any, tables: Any) -> None:
        space = Space.of(tables["independent"], codecs)
        points = space.points(tables["independent"])
        assert points[~np.isnan(tables["independent"][:, 1]), 1].mean() == pytest.approx(0.5, abs=0.01)
        lost, known = (points[np.isnan(tables["independent"][:, 1]) == value][:1] for value in (True, False))
        assert space.column_distance(lost, known, 1) == 1 and space.column_distance(lost, lost, 1) == 0


class TestSinglingOut:
    TABLE = np.array([[1.0, 0], [2, 0], [2, 1], [5, 1], [np.nan, 1]])
    ORDERED = np.array([True, False])

    def test_predicates_of_one_column_by_hand(self) -> None:
        found = single_column_predicates(self.TABLE, self.ORDERED, 99, np.random.default_rng(0))
        assert set(found) == {
            (Condition(0, "is", 1.0),),
            (Condition(0, "is", 5.0),),
            (Condition(0, "at most", 1.0),),
            (Condition(0, "at least", 5.0),),
            (Condition(0, "missing", 0.0),),
        }
        assert all(matches(self.TABLE, predicate) == 1 for predicate in found)

    def test_matches_by_hand(self) -> None:
        assert matches(self.TABLE, (Condition(0, "at least", 2.0), Condition(1, "is", 1.0))) == 2
        assert matches(self.TABLE, (Condition(0, "at most", 2.0), Condition(1, "is", 1.0))) == 1
        assert matches(self.TABLE, (Condition(0, "missing", 0.0), Condition(1, "is", 0.0))) == 0

    def test_predicates_of_several_columns_single_out(self, tables: Any, codecs: Any) -> None:
        fake = tables["independent"]
        found = several_column_predicates(fake, is_ordered(codecs), 3, 40, np.random.default_rng(0))
        assert len(found) == len(set(found)) == 40
        for predicate in found:
            assert len({condition.column for condition in predicate}) == 3
            assert matches(fake, predicate) == 1

    def test_a_copy_of_the_training_rows_singles_out_all_of_them(self, tables: Any, codecs: Any) -> None:
        training, held_out = tables["training"], tables["held_out"]
        one, several = singling_out(
            training, held_out, training, is_ordered(codecs), attempts=60, rng=np.random.default_rng(0)
        )
        assert one.training.value == several.training.value == 1.0
        assert one.alarm and several.alarm and several.risk.low > 0.5


class TestAttacks:
    def test_a_copy_of_the_training_rows_links_and_tells_everything(self, tables: Any, codecs: Any) -> None:
        training, held_out = tables["training"], tables["held_out"]
        rng = np.random.default_rng(0)
        two = {name: codecs[name] for name in ("age", "admitted")}  # few ties: ten neighbours hold the person's own row
        linked = linkability(*(t[:, [0, 4]] for t in (training[:200], held_out[:200], training)), two, rng=rng)
        assert linked is not None and linked.alarm
        assert linked.training.value > 0.95 and linked.control.value < 0.6
        inferred = {r.name: r for r in attribute_inference(training[:200], held_out[:200], training, codecs, rng=rng)}
        assert inferred["admitted"].training.value > 0.95
        assert inferred["admitted"].control.value < 0.2
        assert all(risk.risk.value > 0.3 for risk in inferred.values())

    def test_good_statistics_are_no_leak(self, people: Draw, codecs: Any) -> None:
        """A column that follows from another is told of everyone, and of training people no better."""
        training, held_out, fake = (people(400, seed) for seed in (1, 2, 3))
        for table in (training, held_out, fake):
            table[:, 5] = table[:, 2]
        risks = attribute_inference(training, held_out, fake, codecs, rng=np.random.default_rng(0))
        died = next(risk for risk in risks if risk.name == "died")
        assert min(died.training.value, died.control.value) > 0.9
        assert died.naive is not None and died.naive.value < 0.6
        assert not died.alarm

    def test_in_common(self) -> None:
        first, second = np.array([[1, 2], [3, 4]]), np.array([[2, 9], [5, 6]])
        assert in_common(first, second).tolist() == [True, False]

    def test_single_column(self, codecs: Any, tables: Any) -> None:
        only = {"died": codecs["died"]}
        three = [tables[name][:, 5:] for name in ("training", "held_out", "independent")]
        assert linkability(*three, only, rng=np.random.default_rng(0)) is None
        assert attribute_inference(*three, only, rng=np.random.default_rng(0)) == []


class TestMembership:
    def test_copies_break_the_promise_and_independent_rows_do_not(self, tables: Any, codecs: Any) -> None:
        leak, fair = (
            membership(tables["training"], tables["held_out"], tables[name], codecs, most=300, mu=0.1)
            for name in ("training", "independent")
        )
        assert leak is not None and fair is not None
        # The synthetic rows are half of the training rows, as many as there are reference rows.
        assert all(attack.broken and attack.area.value > 0.9 for attack in leak.attacks)
        assert not any(attack.broken or attack.alarm for attack in fair.attacks)
        assert all(attack.area.low < 0.5 < attack.area.high for attack in fair.attacks)
        assert leak.promised_area == pytest.approx(0.5282, abs=1e-4)  # Φ(0.1 / √2)

    def test_twins_among_the_held_out_rows_are_no_leak(self, tables: Any, codecs: Any) -> None:
        """Every held-out row twice, as no table of people is: the twins would be nearer to the reference."""
        twice = np.repeat(tables["held_out"][:300], 2, axis=0)
        twice = np.concatenate([twice[::2], twice[1::2]])
        found = membership(tables["training"], twice, tables["independent"], codecs, most=150, mu=0.1)
        assert found is not None and not any(attack.alarm or attack.broken for attack in found.attacks)
        assert found.reference == 150

    def test_the_promised_curve_ends_in_the_corners_and_has_the_promised_area(self) -> None:
        curve = promised_curve(1.0)
        assert (curve[0], curve[-1]) == (0.0, 1.0)
        assert np.all(np.diff(curve) > 0)
        assert np.trapezoid(curve, dx=1 / (len(curve) - 1)) == pytest.approx(0.7602, abs=0.01)  # Φ(1 / √2)
