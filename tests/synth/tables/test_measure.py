"""What is measured, charged and drawn; and that nobody moves a released vector by more than was paid for."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.errors import BudgetExceeded
from synth.privacy import budget
from synth.privacy.accounting import compose_mu, mu_of
from synth.privacy.events import mu_of_choice
from synth.schema import Schema, parse_schema
from synth.tables import measure as measure_module
from synth.tables.blocks import NONE
from synth.tables.codec import codecs_of
from synth.tables.denoise import denoise
from synth.tables.measure import Measurer
from synth.tables.measurements import PairTable, TripleTable, load_measurements, save_measurements

Codes = dict[str, int]
SLACK = 1 + 1e-9

# The hardest cells first: extremes, nothing, out of domain, unreadable, rounding edges, values that many share.
CELLS: dict[str, list[str | None]] = {
    "income": [
        "100",
        None,
        "0",
        "-0.0",
        "200",
        "200.04",
        "-1",
        "1e300",
        "-inf",
        "inf",
        "nan",
        "junk",
        "0.1",
        "77.7",
    ],
    "age": ["40", "0", "99", None, "-7", "1e18", "39.5", "40.0", "inf", "", "12"],
    "city": ["Rome", None, "Oslo", "other", "Atlantis", "", "ROME"],
    "sex": ["female", "male", None, "x"],
    "died": ["true", "false", None, "1", "0.0", "maybe"],
}
COLUMNS: dict[str, dict[str, Any]] = {
    "income": {"kind": "continuous", "bounds": [0, 200], "decimals": 1, "nullable": True},
    "age": {"kind": "integer", "bounds": [0, 99]},
    "city": {"kind": "categorical", "categories": ["Rome", "Oslo", "other"], "nullable": True, "outside": "other"},
    "sex": {"kind": "categorical", "categories": ["female", "male"]},
    "died": {"kind": "boolean", "nullable": True},
}
ROWS = 3
EPSILONS = st.sampled_from([0.5, 3.0, 60.0])
WIDE = tuple(f"flag{i}" for i in range(15))


def toy_schema(names: Sequence[str], target: str | None) -> Schema:
    columns = [{"name": n, **COLUMNS.get(n, COLUMNS["sex"])} for n in names]
    return parse_schema({"dataset": "toy", "target": target, "columns": columns}, file="s")


def people_of(names: Sequence[str]) -> st.SearchStrategy[tuple[str | None, ...]]:
    return st.tuples(*(st.sampled_from(CELLS.get(name, CELLS["sex"])) for name in names))


TOYS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "categorical target": (("income", "city", "died"), "died"),
    "no target": (("income", "city", "died"), None),
    "numeric target": (("age", "city", "income"), "age"),
    "nullable numeric target": (("income", "city", "died"), "income"),
    "one column": (("income",), None),
}


@st.composite
def neighbours(draw: st.DrawFn, names: Sequence[str]) -> tuple[list[Any], Any, Any]:
    """A table with crowds in it, and the rows of two people who may join it: at most ROWS each, often all equal."""
    crowds = draw(st.lists(st.tuples(people_of(names), st.sampled_from([1, 1, 2, 40])), max_size=8))
    crowd = [person for person, size in crowds for _ in range(size)]
    rows = people_of(names).map(lambda row: [row] * ROWS) | st.lists(people_of(names), min_size=1, max_size=ROWS)
    return crowd, draw(rows), draw(rows)


class Twin:
    """A run and the same run on neighbouring people, with the outputs of the first held fixed."""

    def __init__(self, run: Any, people: Sequence[Codes], seed: int = 0) -> None:
        self.run = run
        self.base, self.measured = run.measure(people, seed=seed)
        self.answers = [release.answer for release in self.base.releases]

    def moves(self, people: Sequence[Codes]) -> list[float]:
        """How far each exact vector lies from its twin on other people (L2), and the scores of a choice (L∞)."""
        other, measured = self.run.measure(people, answers=self.answers)
        assert other.log == self.base.log
        assert [r.noise_scale for r in other.releases] == [r.noise_scale for r in self.base.releases]
        assert measured.pairs.keys() == self.measured.pairs.keys()
        pairs = zip(self.base.releases, other.releases, strict=True)
        return [
            float(np.linalg.norm((a.exact - b.exact).astype(float).ravel(), ord=np.inf if a.choice else 2))
            for a, b in pairs
        ]

    def spent(self, moves: Sequence[float]) -> dict[str, float]:
        """What those distances would cost at the noise that was drawn: event → μ."""
        spent: dict[str, float] = defaultdict(float)
        for release, move in zip(self.base.releases, moves, strict=True):
            ratio = move / release.noise_scale
            spent[release.event] += (mu_of_choice(ratio) if release.choice else ratio) ** 2
        return {event: math.sqrt(value) for event, value in spent.items()}


@pytest.fixture(scope="module", params=[1.0, 4.0])
def epsilon(request: pytest.FixtureRequest) -> float:
    return float(request.param)


class TestNobodyMovesMoreThanWasPaidFor:
    """The brute-force twin: every vector of a run, with and without one person."""

    @pytest.mark.parametrize(("names", "target"), TOYS.values(), ids=TOYS)
    @settings(max_examples=30)
    @given(data=st.data())
    def test_on_a_toy_table(
        self, toy_run: Any, names: tuple[str, ...], target: str | None, data: st.DataObject
    ) -> None:
        m = data.draw(st.sampled_from([1, ROWS]))
        run = toy_run(toy_schema(names, target), epsilon=data.draw(EPSILONS), max_rows_per_person=m)
        self.check(run, m, *data.draw(neighbours(names)))

    @pytest.mark.parametrize("target", [None, "died", "income"])
    @settings(max_examples=8)
    @given(data=st.data())
    def test_on_a_wide_table_with_chosen_pairs(self, toy_run: Any, target: str | None, data: st.DataObject) -> None:
        names = (*WIDE, "died", "income")
        m = data.draw(st.sampled_from([1, ROWS]))
        run = toy_run(toy_schema(names, target), epsilon=data.draw(EPSILONS), max_rows_per_person=m)
        assert run.plan.selection is not None
        self.check(run, m, *data.draw(neighbours(names)))

    def check(self, run: Any, m: int, crowd: list[Any], one: list[Any], other: list[Any]) -> None:
        people = [run.codes_of(row, i) for i, row in enumerate(crowd)]
        first = [run.codes_of(row, 10_000 + i) for i, row in enumerate(one[:m])]
        second = [run.codes_of(row, 20_000 + i) for i, row in enumerate(other[:m])]
        events = {event.name: event for event in run.plan.events}
        twin = Twin(run, [*people, *first])
        for near, limit in (
            (people, "mu"),
            ([*people, *first, *second], "mu"),
            ([*people, *second], "replace_one_mu"),
        ):
            spent = twin.spent(twin.moves(near))
            assert spent.keys() == events.keys()
            for name, mu in spent.items():
                assert mu <= getattr(events[name], limit) * SLACK, (name, limit)
            if limit == "mu":
                assert math.sqrt(math.fsum(mu**2 for mu in spent.values())) <= compose_mu(run.plan.events) * SLACK

    @pytest.mark.parametrize(("names", "target"), [*TOYS.values(), ((*WIDE, "died"), "died")])
    def test_what_is_drawn_is_what_was_planned(
        self, toy_run: Any, names: tuple[str, ...], target: str | None, epsilon: float
    ) -> None:
        """Each vector's own worst case over people, at the noise really drawn, adds up to the plan exactly."""
        run = toy_run(toy_schema(names, target), epsilon=epsilon)
        rng = np.random.default_rng(3)
        pools = [CELLS.get(name, CELLS["sex"]) for name in names]
        crowd = [tuple(pool[rng.integers(len(pool))] for pool in pools) for _ in range(60)]
        people = [run.codes_of(person, i) for i, person in enumerate(crowd)]
        twin = Twin(run, people)
        worst = np.zeros(len(twin.answers))
        joined = np.zeros(len(run.plan.events))
        for i in range(25):
            person = tuple(pool[(i + j) % len(pool)] for j, pool in enumerate(pools))
            moves = twin.moves([*people, run.codes_of(person, 20_000 + i)])
            worst = np.maximum(worst, moves)
            spent = twin.spent(moves)
            joined = np.maximum(joined, [spent[event.name] for event in run.plan.events])
        unit = np.ones(len(worst))
        assert np.all(worst <= unit * SLACK)
        planned = {event.name: event.mu for event in run.plan.events}
        assert twin.spent(unit) == pytest.approx(planned, rel=1e-9)
        # The bound is met by someone wherever every column counts everybody: nothing is paid for twice.
        for event, mu in zip(run.plan.events, joined, strict=True):
            if event.name not in {budget.DETAIL, budget.SELECTION, budget.TRIPLE_SELECTION}:
                assert mu == pytest.approx(event.mu, rel=1e-9), event.name

    def test_only_whole_counts_are_noised(self, toy_run: Any) -> None:
        run = toy_run(toy_schema((*WIDE, "income"), "income"), epsilon=1.0)
        recorder, _ = run.measure([run.codes_of((*["male"] * 15, "5"), 0)])
        assert {release.exact.dtype.kind for release in recorder.releases if not release.choice} == {"i"}

    def test_a_person_is_in_every_vector_that_counts_everybody(self, toy_run: Any) -> None:
        run = toy_run(toy_schema(*TOYS["categorical target"]), epsilon=1.0)
        recorder, _ = run.measure([run.codes_of(("12.5", "Rome", "true"), i) for i in range(7)])
        counts = [release for release in recorder.releases if release.event != budget.DETAIL]
        assert all(release.exact.sum() == 7 for release in counts)


class TestCharging:
    @pytest.mark.parametrize(("names", "target"), [*TOYS.values(), (WIDE, None), ((*WIDE, "age"), "age")])
    def test_each_event_once_and_before_its_draws(
        self, toy_run: Any, names: tuple[str, ...], target: str | None, epsilon: float
    ) -> None:
        run = toy_run(toy_schema(names, target), epsilon=epsilon)
        person = tuple(CELLS.get(name, CELLS["sex"])[0] for name in names)
        recorder, _ = run.measure([run.codes_of(person, i) for i in range(20)])
        charged = [event for kind, event in recorder.log if kind == "charge"]
        assert charged == [event.name for event in run.plan.events]
        # The recorder books a draw on the latest charge, so this is also the order of the draws.
        assert {event for kind, event in recorder.log if kind == "draw"} == set(charged)

    def test_nothing_is_drawn_when_the_ledger_refuses(self, toy_run: Any) -> None:
        run = toy_run(toy_schema(*TOYS["nullable numeric target"]), epsilon=1.0)
        people = [run.codes_of(("5", "Rome", "true"), i) for i in range(20)]
        recorder, _ = run.measure(people)
        first_draw = {}
        for position, (kind, event) in enumerate(recorder.log):
            if kind == "draw":
                first_draw.setdefault(event, position - sum(k == "charge" for k, _ in recorder.log[:position]))
        for refused in run.plan.events:
            drawn: list[np.ndarray] = []

            class Noise:
                def add_to(self, exact: np.ndarray, noise_scale: float, drawn: list[np.ndarray] = drawn) -> np.ndarray:
                    drawn.append(exact)
                    return exact.astype(float)

                def choose(self, scores: np.ndarray, noise_scale: float, drawn: list[np.ndarray] = drawn) -> int:
                    drawn.append(scores)
                    return 0

            def charge(name: str, refused: str = refused.name) -> None:
                if name == refused:
                    raise BudgetExceeded("cap")

            batch = {key: np.array([codes[key] for codes in people], dtype=np.int32) for key in run.keys}
            with pytest.raises(BudgetExceeded):
                Measurer(
                    read=lambda keys, batch=batch: [batch],
                    codecs=run.codecs,
                    layout=run.layout,
                    plan=run.plan,
                    noise=Noise(),  # type: ignore[arg-type]
                    charge=charge,
                    public_rows=None,
                ).measure()
            assert len(drawn) == first_draw[refused.name]

    def test_the_noise_follows_from_the_plan_alone(self, toy_run: Any) -> None:
        """More people, other people or a declared row count change no noise scale but the shares of bins and pairs."""
        run = toy_run(toy_schema(*TOYS["categorical target"]), epsilon=1.0)
        crowds = [[("5", "Rome", "true")] * 3, [("700", None, "no"), ("8", "Oslo", "true")] * 50]
        scales = []
        for crowd in crowds:
            recorder, _ = run.measure([run.codes_of(person, i) for i, person in enumerate(crowd)])
            shared = {budget.ONE_WAY, budget.PAIRS_BY_CLASS, budget.PAIRS_SUMMED}
            scales.append([(r.event, r.noise_scale) for r in recorder.releases if r.event not in shared])
            for name in shared:
                mu2 = math.fsum(r.noise_scale**-2 for r in recorder.releases if r.event == name)
                event = next(e for e in run.plan.events if e.name == name)
                assert mu2 == pytest.approx(event.mu**2, rel=1e-9)
        assert scales[0] == scales[1]

    def test_the_whole_run_costs_what_was_asked_for(self, toy_run: Any) -> None:
        run = toy_run(toy_schema((*WIDE, "died"), "died"), epsilon=1.0)
        twin = Twin(run, [run.codes_of((*["male"] * 15, "true"), i) for i in range(5)])
        spent = twin.spent([1.0] * len(twin.answers))
        assert math.fsum(mu**2 for mu in spent.values()) == pytest.approx(mu_of(1.0, 1e-5) ** 2, rel=1e-9)


class TestMeasurements:
    @pytest.mark.parametrize(("names", "target"), [*TOYS.values(), ((*WIDE, "died"), "died")])
    def test_are_read_back_as_they_were_saved(
        self, toy_run: Any, tmp_path: Path, names: tuple[str, ...], target: str | None
    ) -> None:
        run = toy_run(toy_schema(names, target), epsilon=5.0)
        person = tuple(CELLS.get(name, CELLS["sex"])[0] for name in names)
        _, measured = run.measure([run.codes_of(person, i) for i in range(20)])
        save_measurements(measured, tmp_path)
        loaded = load_measurements(tmp_path)
        for name, value in vars(measured).items():
            self.same(value, getattr(loaded, name))
        # The order of columns is the order of the encoding.
        assert list(loaded.bin_of_cell) == list(measured.bin_of_cell)
        assert list(loaded.pairs) == list(measured.pairs)
        assert list(loaded.triples) == list(measured.triples)

    def test_a_wide_table_has_triples_that_were_chosen(self, toy_run: Any) -> None:
        run = toy_run(toy_schema((*WIDE, "died"), "died"), epsilon=5.0)
        _, measured = run.measure([run.codes_of((*["male"] * 15, "true"), i) for i in range(20)])
        assert len(measured.triples) == run.plan.measured_triples == 2 * len(WIDE)
        assert list(measured.triples) == sorted(measured.triples, key=[*run.layout.triples].index)
        for triple, table in measured.triples.items():
            assert table.noised.shape == tuple(int(measured.group_of_bin[name].max()) + 1 for name in triple)

    def same(self, first: Any, second: Any) -> None:
        if isinstance(first, dict):
            assert first.keys() == second.keys()
            for key in first:
                self.same(first[key], second[key])
        elif isinstance(first, PairTable | TripleTable):
            self.same(vars(first), vars(second))
        else:
            assert np.array_equal(first, second) if isinstance(first, np.ndarray) else first == second

    @pytest.mark.parametrize("count", [1, 500])
    def test_a_declared_row_count_is_used_as_given(
        self, toy_run: Any, schema_of: Callable[..., Schema], count: int
    ) -> None:
        run = toy_run(schema_of("age", "died", target="died", row_count=count), epsilon=5.0)
        _, measured = run.measure([run.codes_of(("5", "true"), i) for i in range(30)])
        assert measured.total == pytest.approx(count)

    def test_a_private_row_count_is_the_noised_one(self, toy_run: Any, schema_of: Callable[..., Schema]) -> None:
        run = toy_run(schema_of("age", "died", target="died"), epsilon=80.0)
        totals = [run.measure([run.codes_of(("5", "true"), i) for i in range(300)], seed=s)[1].total for s in range(5)]
        assert len(set(totals)) == 5
        assert totals == pytest.approx([300] * 5, abs=20)
        assert all(total == pytest.approx(300, abs=40) for total in totals)

    def test_runs_of_cells_are_counted_and_used(self, toy_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        run = toy_run(toy_schema(("income", "died"), "died"), epsilon=5.0)
        people = [run.codes_of((cell, "true"), i) for i, cell in enumerate(["0", "7", "150", None] * 50)]
        used: list[list[np.ndarray]] = []
        monkeypatch.setattr(
            measure_module,
            "denoise",
            lambda *args, binned=(), **named: used.append([b.noised for b in binned]) or denoise(*args, binned=binned),
        )
        recorder, measured = run.measure(people)
        (coarse,) = (r for r in recorder.releases if r.noise_scale == run.plan.coarse_noise["income"])
        cells = run.codecs["income"].lattice.cells
        expected = np.zeros(8, dtype=int)
        for codes in people:
            if codes["cells:income"] < cells:
                expected[codes["cells:income"] * 8 // cells] += 1
        assert expected.sum() == 150 and np.array_equal(coarse.exact, expected)
        assert measured.run_of_cell["income"][cells] == NONE
        # The fit that places the bins sees the runs, the one after the second release the bins too.
        assert [len(binned) for binned in used] == [1, 2]
        assert all(binned[0] is measured.coarse["income"] for binned in used)

    def test_last_digits_are_looked_at(self, toy_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        run = toy_run(toy_schema(("age", "died"), "died"), epsilon=5.0)
        used: list[np.ndarray] = []
        monkeypatch.setattr(
            measure_module,
            "denoise",
            lambda *args, place=None, **named: used.append(place) or denoise(*args, place=place, **named),
        )
        run.measure([run.codes_of((age, "true"), i) for i, age in enumerate(["20", "31", "50", "64"] * 50)])
        grid = run.codecs["age"].lattice
        # By the fit that places the bins, and by the one after the second release.
        assert len(used) == 2 and all(np.array_equal(place, grid.edges[:-1] % 10) for place in used)

    def test_class_sizes_are_sizes(self, hospital_run: Any) -> None:
        _, measured = hospital_run
        assert (measured.class_sizes >= 0).all()
        assert measured.class_sizes == pytest.approx([280, 120], abs=30)

    def test_bins_are_placed_for_people_that_every_column_counts(
        self, toy_run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = toy_run(toy_schema((*WIDE, "died"), "died"), epsilon=0.3)
        seen: list[float] = []
        most_bins = measure_module.bins.most_bins
        monkeypatch.setattr(
            measure_module.bins, "most_bins", lambda people, *rest: seen.append(people) or most_bins(people, *rest)
        )
        people = [run.codes_of(("male",) * len(WIDE) + ("true",), i) for i in range(400)]
        for seed in range(12):
            run.measure(people, seed=seed)
        # The class sizes alone would be off by the noise of each of them.
        assert np.std(seen) < math.sqrt(run.layout.classes) * run.plan.class_noise / 2

    def test_nothing_but_noise_is_still_a_table(self, toy_run: Any) -> None:
        run = toy_run(toy_schema(*TOYS["categorical target"]), epsilon=0.01)
        _, measured = run.measure([run.codes_of(("5", "Rome", "true"), 0)])
        assert measured.total >= 1
        assert np.isfinite(measured.profiles["income"]).all()

    @pytest.mark.parametrize("nullable", [True, False])
    def test_a_numeric_target_is_cut_into_even_classes(self, toy_run: Any, nullable: bool) -> None:
        columns = [
            {"name": "score", "kind": "integer", "bounds": [0, 99], "nullable": nullable},
            {"name": "sex", **COLUMNS["sex"]},
        ]
        schema = parse_schema({"dataset": "t", "target": "score", "columns": columns}, file="s")
        run = toy_run(schema, epsilon=100.0)
        crowd = [(str(i % 100), "male") for i in range(2000)] + [(None, "male")] * (500 * nullable)
        _, measured = run.measure([run.codes_of(person, i) for i, person in enumerate(crowd)])
        assert len(measured.class_sizes) == run.layout.classes == 5 + nullable
        assert measured.class_sizes[:5] == pytest.approx([400] * 5, rel=0.15)
        assert np.all(np.diff(measured.class_of_cell) >= 0)
        if nullable:
            missing = codecs_of(schema)["score"].missing
            assert measured.class_of_cell[missing] == 5
            assert (measured.class_of_cell == 5).sum() == 1


class TestPairTable:
    def test_the_best_table_weighs_both_by_their_precision(self) -> None:
        by_class, summed = np.array([[[6.0]], [[6.0]]]), np.array([[8.0]])
        table, noise = PairTable(by_class, 1.0, summed, math.sqrt(2)).best()
        assert (table[0, 0], noise) == (pytest.approx(10), pytest.approx(1.0))
        assert PairTable(by_class, 1.0, None, 0.0).best() == (np.array([[12.0]]), math.sqrt(2))
        assert PairTable(None, 0.0, summed, 3.0).best() == (summed, 3.0)
