from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.privacy.events import SelectionEvent
from synth.privacy.noise import NoiseSource
from synth.schema import parse_schema
from synth.tables.measurements import FloatArray, Pair
from synth.tables.pair_choice import MAX_GROUPS, SCORE_UNIT, choose_pairs, groups_of, noise_left, scores_of

NAMES = ("a", "b", "c", "d", "e")
PAIRS = tuple(itertools.combinations(NAMES, 2))


def event(selections: int, noise_scale: float = 1.0) -> SelectionEvent:
    return SelectionEvent(
        name="s", selections=selections, sensitivity=1, replace_one_sensitivity=2, noise_scale=noise_scale
    )


class TestGroups:
    @given(
        mass=st.lists(st.floats(0, 1e6), min_size=1, max_size=80).map(np.array),
        part=st.floats(0, 1),
    )
    def test_are_few_and_leave_no_number_out(self, mass: np.ndarray, part: float) -> None:
        in_order = round(part * len(mass))
        groups = groups_of(mass, in_order)
        assert set(groups.tolist()) == set(range(int(groups.max()) + 1))
        ordered, others = groups[:in_order], groups[in_order:]
        assert not set(ordered.tolist()) & set(others.tolist())
        assert (np.diff(ordered) >= 0).all()
        assert len(set(ordered.tolist())) <= MAX_GROUPS
        assert len(set(others.tolist())) <= MAX_GROUPS

    def test_neighbours_share_about_equal_masses(self) -> None:
        groups = groups_of(np.full(10 * MAX_GROUPS, 3.0), 10 * MAX_GROUPS)
        assert np.bincount(groups).tolist() == [10] * MAX_GROUPS

    def test_the_lightest_levels_share_one(self) -> None:
        mass = np.arange(20.0)
        groups = groups_of(mass, 0)
        assert set(np.nonzero(groups == MAX_GROUPS - 1)[0]) == set(range(20 - MAX_GROUPS + 1))


class Profiled:
    """What scores are taken from, of the measurements."""

    def __init__(self, class_sizes: np.ndarray, profiles: dict[str, np.ndarray]) -> None:
        self.class_sizes, self.profiles = class_sizes, profiles


def test_a_score_is_the_distance_from_independence() -> None:
    rng = np.random.default_rng(2)
    sizes = np.array([300.0, 500.0])
    profiles = {name: rng.dirichlet(np.ones(4), size=2) for name in ("a", "b")}
    groups = {"a": np.array([0, 0, 1, 2]), "b": np.array([0, 1, 1, 1])}
    counts = rng.integers(0, 200, size=(3, 2))
    found, by_chance = scores_of(Profiled(sizes, profiles), groups, {("a", "b"): counts})  # type: ignore[arg-type]
    distance = chance = 0.0
    for i, j in itertools.product(range(3), range(2)):
        expected = sum(
            sizes[c] * profiles["a"][c, groups["a"] == i].sum() * profiles["b"][c, groups["b"] == j].sum()
            for c in range(2)
        )
        distance += abs(counts[i, j] - expected)
        chance += min(math.sqrt(2 * expected / math.pi), 2 * expected)
    assert found[0] == pytest.approx(distance, abs=6 / SCORE_UNIT)
    assert by_chance[0] == pytest.approx(chance)


def test_measuring_larger_tables_leaves_more_noise() -> None:
    left = noise_left(np.array([16.0, 1600.0, 16.0]), 3, mu=0.1)
    assert left[0] == left[2] < left[1]
    assert noise_left(np.array([16.0, 1600.0, 16.0]), 3, mu=0.2) == pytest.approx(left / 2)


class CountedNoise(NoiseSource):
    """Counts the choices that are made."""

    choices = 0

    def choose(self, scores: FloatArray, noise_scale: float) -> int:
        self.choices += 1
        return super().choose(scores, noise_scale)


class TestChoosing:
    @settings(max_examples=40)
    @given(
        worth=st.lists(st.floats(-1e5, 1e5), min_size=len(PAIRS), max_size=len(PAIRS)).map(np.array),
        selections=st.integers(1, len(PAIRS)),
    )
    def test_no_pair_twice_and_first_a_tree(self, worth: np.ndarray, selections: int) -> None:
        chosen = choose_pairs(PAIRS, worth, event(selections), NoiseSource())
        assert len(set(chosen)) == len(chosen) == selections
        assert chosen == sorted(chosen)
        if selections >= len(NAMES) - 1:
            joined = {NAMES[0]}
            for _ in NAMES:
                joined |= {name for i in chosen if joined & set(PAIRS[i]) for name in PAIRS[i]}
            assert joined == set(NAMES)

    @settings(max_examples=40)
    @given(tied=st.lists(st.sampled_from(PAIRS), unique=True, max_size=6), selections=st.integers(1, len(PAIRS)))
    def test_what_rules_join_needs_no_choice(self, tied: list[Pair], selections: int) -> None:
        noise = CountedNoise()
        chosen = choose_pairs(PAIRS, np.zeros(len(PAIRS)), event(selections), noise, tied=tied)
        given_ = tied[: selections // 2]
        assert set(given_) <= {PAIRS[i] for i in chosen}
        assert len(chosen) == selections
        assert noise.choices == selections - len(given_)  # never more than were paid for

    def test_the_best_tree_when_noise_is_small(self) -> None:
        worth = np.zeros(len(PAIRS))
        for pair, value in {("a", "b"): 100, ("b", "c"): 100, ("c", "d"): 100, ("a", "c"): 90, ("d", "e"): 10}.items():
            worth[PAIRS.index(pair)] = value
        tree = [PAIRS.index(pair) for pair in (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"))]
        # ("a", "c") is worth more than the last of the tree, and joins nothing new: it comes after. Any other choice
        # has a chance below 10 exp(-100) in each of five.
        assert choose_pairs(PAIRS, worth, event(4, noise_scale=0.1), NoiseSource()) == sorted(tree)
        chosen = choose_pairs(PAIRS, worth, event(5, noise_scale=0.1), NoiseSource())
        assert chosen == sorted([*tree, PAIRS.index(("a", "c"))])

    def test_a_rule_has_its_pair_measured_at_any_budget(self, toy_run: Any) -> None:
        flags = [f"flag{i}" for i in range(15)]
        columns = [{"name": name, "kind": "categorical", "categories": ["no", "yes"]} for name in flags]
        raw = {"dataset": "toy", "columns": columns, "rules": ["not (flag3 = yes and flag11 = no)"]}
        run = toy_run(parse_schema(raw, file="s"), epsilon=0.1)
        recorder, measured = run.measure([run.codes_of(("yes",) * 15, i) for i in range(50)])
        assert ("flag3", "flag11") in measured.pairs
        assert len(measured.pairs) == run.plan.selection.selections
        chosen = [r for r in recorder.releases if r.choice and r.event == run.plan.selection.name]
        assert len(chosen) == run.plan.selection.selections - 1

    def test_finds_the_columns_that_go_together(self, toy_run: Any) -> None:
        flags = [f"flag{i}" for i in range(15)]
        columns = [{"name": name, "kind": "categorical", "categories": ["no", "yes"]} for name in flags]
        run = toy_run(parse_schema({"dataset": "toy", "columns": columns}, file="s"), epsilon=60.0)
        rng = np.random.default_rng(1)
        crowd = []
        for _ in range(1500):
            row = ["yes" if x else "no" for x in rng.random(15) < 0.5]
            row[9] = row[2]
            crowd.append(tuple(row))
        _, measured = run.measure([run.codes_of(person, i) for i, person in enumerate(crowd)])
        assert ("flag2", "flag9") in measured.pairs
        assert len(measured.pairs) == run.plan.selection.selections
