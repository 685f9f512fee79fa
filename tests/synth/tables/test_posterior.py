"""Conditions and asked shares against the brute force: the probability of every row of a tiny table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from synth.errors import UserError
from synth.tables import rows as rows_module
from synth.tables.conditions import parse_balance, parse_conditions
from synth.tables.model import TableModel
from synth.tables.posterior import posterior_of
from synth.tables.rows import sample_rows
from synth.tables.spread import pieces_of

WHERE: dict[str, tuple[list[str], Callable[..., bool]]] = {
    "nothing": ([], lambda sex, grade, age, died: True),
    "a range": (["age>=2"], lambda sex, grade, age, died: age is not None and age >= 2),
    "part of a bin": (["age>0", "age<5"], lambda sex, grade, age, died: age in {1, 2, 3, 4}),
    "a set of levels": (["grade=1|3"], lambda sex, grade, age, died: grade in {1, 3}),
    "a level of a shared bin, or missing": (["grade=2|"], lambda sex, grade, age, died: grade in {2, None}),
    "the class": (["died=true"], lambda sex, grade, age, died: died),
    "not one value": (["age!=2", "grade!="], lambda sex, grade, age, died: age != 2 and grade is not None),
    "everything at once": (
        ["age<=4", "age!=1", "grade>1", "sex=male", "died=false"],
        lambda sex, grade, age, died: age in {0, 2, 3, 4} and grade in {2, 3} and sex == "male" and not died,
    ),
}


def implied(tiny: Any, model: TableModel, **asked: Any) -> np.ndarray:
    """The joint distribution that a posterior draws from, put together from its parts."""
    posterior = posterior_of(model, **asked)
    table = np.zeros([len(values) for values in tiny.values.values()])
    for c, k in np.ndindex(posterior.weights.shape):
        factors = []
        for name, values in tiny.values.items():
            if name not in posterior.pieces:
                factors.append(np.eye(len(values))[c])
                continue
            pieces, own = posterior.pieces[name], model.shares[c, k, model.encoding.place(name)].astype(float)
            factor = np.zeros(len(values))
            for bin_, mass, first, last in zip(pieces.bin, pieces.mass, pieces.first, pieces.last, strict=True):
                places = [len(values) - 1] if np.isnan(first) else range(int(first), int(last) + 1)
                for place in places:
                    factor[place] += own[bin_] * mass / len(places)
            factors.append(factor / max(factor.sum(), 1e-300))
        table += posterior.weights[c, k] * np.einsum("a,b,c,d->abcd", *factors)
    return table


@pytest.fixture(scope="module", params=["died", None], ids=["class", "no class"])
def model(tiny: Any, request: pytest.FixtureRequest) -> TableModel:
    return tiny.model(target=request.param)


@pytest.mark.parametrize("name", WHERE)
class TestConditions:
    def test_the_posterior_is_the_joint_distribution_cut(self, tiny: Any, model: TableModel, name: str) -> None:
        texts, meets = WHERE[name]
        found = implied(tiny, model, conditions=parse_conditions(model.codecs, texts))
        assert found == pytest.approx(tiny.given(model, meets), rel=1e-5, abs=1e-12)

    def test_rows_follow_it(self, tiny: Any, model: TableModel, name: str) -> None:
        texts, meets = WHERE[name]
        conditions = parse_conditions(model.codecs, texts)
        drawn = pa.Table.from_batches(list(sample_rows(model, 20_000, seed=1, conditions=conditions)))
        assert tiny.fits(tiny.counted(drawn), tiny.given(model, meets))


def balanced(model: TableModel, where: list[str], text: str) -> dict[str, Any]:
    conditions = parse_conditions(model.codecs, where)
    return {"conditions": conditions, "balance": parse_balance(model.codecs, text, conditions)}


def reweighted(table: np.ndarray, axis: int, shares: list[float]) -> np.ndarray:
    """A joint distribution whose rows are weighed so that one column's levels have the given shares."""
    now = table.sum(axis=tuple(i for i in range(4) if i != axis))
    factor = np.divide(shares, now, out=np.zeros(len(now)), where=now > 0)
    return np.asarray(table * factor.reshape([-1 if i == axis else 1 for i in range(4)]))


class TestBalance:
    @pytest.mark.parametrize(
        ("where", "text", "column", "shares"),
        [
            ("nothing", "died", "died", [0.5, 0.5]),
            ("nothing", "grade", "grade", [0.25] * 4),
            ("a level of a shared bin, or missing", "grade", "grade", [0, 0.5, 0, 0.5]),
            ("a range", "died=true:0.9", "died", [0.1, 0.9]),
            ("a range", "grade=3:0.5|1:0.1|2:0.3|:0.1", "grade", [0.1, 0.3, 0.5, 0.1]),
            ("the class", "sex=male:1", "sex", [0, 1]),
        ],
    )
    def test_weighs_the_rows_and_nothing_else(
        self, tiny: Any, model: TableModel, where: str, text: str, column: str, shares: list[float]
    ) -> None:
        texts, meets = WHERE[where]
        asked = balanced(model, texts, text)
        expected = reweighted(tiny.given(model, meets), list(tiny.values).index(column), shares)
        assert implied(tiny, model, **asked) == pytest.approx(expected, rel=1e-5, abs=1e-12)
        drawn = pa.Table.from_batches(list(sample_rows(model, 20_000, seed=2, **asked)))
        assert tiny.fits(tiny.counted(drawn), expected)

    def test_levels_that_are_not_named_keep_their_proportions(self, tiny: Any, model: TableModel) -> None:
        table = tiny.joint(model)
        grades = table.sum(axis=(0, 2, 3))
        rest = grades[:2].sum() + grades[3]
        expected = reweighted(table, 1, [*(0.4 * grades[:2] / rest), 0.6, 0.4 * grades[3] / rest])
        assert implied(tiny, model, **balanced(model, [], "grade=3:0.6")) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("column", ["died", "sex"])
    def test_shares_of_bins_are_kept_to_the_row(self, model: TableModel, column: str) -> None:
        drawn = pa.Table.from_batches(list(sample_rows(model, 1001, seed=0, **balanced(model, [], column))))
        values = drawn.column(column).to_pylist()
        assert {abs(values.count(value) - 500.5) for value in set(values)} == {0.5}


class TestClasses:
    def test_a_declared_class_that_noise_wiped_out_can_be_drawn(self, tiny: Any) -> None:
        model = tiny.model(class_share=np.array([1.0, 0.0]))
        conditions = parse_conditions(model.codecs, ["died=true"])
        drawn = pa.Table.from_batches(list(sample_rows(model, 50, seed=0, conditions=conditions)))
        assert set(drawn.column("died").to_pylist()) == {True}
        even = pa.Table.from_batches(list(sample_rows(model, 50, seed=0, **balanced(model, [], "died"))))
        assert even.column("died").to_pylist().count(True) == 25

    def test_impossible_conditions_are_refused(self, tiny: Any) -> None:
        model = tiny.model()
        for member in model.members:
            member.class_bias.data[1, 0] = -1e4  # nobody of the class is female
        both = parse_conditions(model.codecs, ["sex=female", "died=true"])
        with pytest.raises(UserError, match="the model holds no such rows"):
            posterior_of(model, both)
        with pytest.raises(UserError, match="--balance died: the model never makes"):
            posterior_of(model, **balanced(model, ["sex=female"], "died"))
        with pytest.raises(UserError, match="--balance sex: the model never makes"):
            posterior_of(model, **balanced(model, ["died=true"], "sex"))


class TestSeeds:
    @pytest.mark.parametrize("where", ["nothing", "a range"])
    def test_the_same_seed_gives_the_same_rows(self, model: TableModel, where: str) -> None:
        conditions = parse_conditions(model.codecs, WHERE[where][0])
        first, second, other = (
            pa.Table.from_batches(list(sample_rows(model, 300, seed=seed, conditions=conditions))) for seed in (5, 5, 6)
        )
        assert first.equals(second)
        assert not first.equals(other)

    def test_a_reader_of_batches_changes_nothing(self, model: TableModel, monkeypatch: pytest.MonkeyPatch) -> None:
        """Batches have one size, which is part of what a seed means; who reads them when has no part in it."""
        monkeypatch.setattr(rows_module, "ROWS_AT_ONCE", 500)
        stream = sample_rows(model, 1200, seed=3)
        first = next(stream)
        list(sample_rows(model, 700, seed=4))
        batches = [first, *stream]
        assert [batch.num_rows for batch in batches] == [500, 500, 200]
        again = list(sample_rows(model, 1200, seed=3))
        assert all(a.equals(b) for a, b in zip(batches, again, strict=True))


class TestValuesThatAreNeverDrawn:
    def test_can_be_asked_for(self, hospital_run: Any, untrained: Any) -> None:
        """Incomes have one decimal and crowd on round values; every one of them can be held, and every range."""
        model: TableModel = untrained(*hospital_run)
        pieces = pieces_of(model.codecs["income"], model.decoders["income"])
        assert len(pieces.bin) > 0
        for text in ("income=1234.5", "income=1234.5|77.7", "weight=70.25|71.5", "weight>=70.1", "income<0.2"):
            conditions = parse_conditions(model.codecs, [text])
            drawn = pa.Table.from_batches(list(sample_rows(model, 40, seed=0, conditions=conditions)))
            name = text[:6]
            low, high = conditions[name].intervals.min(), conditions[name].intervals.max()
            codec = model.codecs[name]
            positions = codec.positions(drawn.column(name).combine_chunks())[0]
            assert np.all((positions >= low) & (positions <= high)), text
