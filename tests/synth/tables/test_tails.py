"""Ends of ordered columns between the last people and a bound that is far away. Seeds are fixed, so every result is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.tables.denoise import BinCounts, denoise
from synth.tables.tails import Fitted, _pareto, _scale, with_tails

CELLS = 400
MIDDLE = np.arange(CELLS) + 0.5
EDGES = np.arange(CELLS + 1.0)
RUNS = np.arange(CELLS) * 8 // CELLS


def released(exact: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """What is made of a histogram by its cells and its runs, each with noise [cells]."""
    rng = np.random.default_rng(seed)
    runs = np.bincount(RUNS, exact) + 1.4 * noise * rng.standard_normal(8)
    noised = exact + noise * rng.standard_normal(CELLS)
    widths = np.ones(CELLS)
    return denoise(noised, noise, widths, exact.sum(), binned=[BinCounts(RUNS, runs, 1.4 * noise)]).mass


def shares(people: int, draw: np.ndarray) -> np.ndarray:
    """Expected counts of cells of a density [cells]."""
    return people * draw / draw.sum()


EXPONENTIAL = shares(7000, np.exp(-MIDDLE / 15))
BELL = shares(7000, np.exp(-((MIDDLE - 90) ** 2) / (2 * 12**2)))
HEAVY = shares(7000, (1 + 0.5 * MIDDLE / 8) ** -3)


@pytest.mark.parametrize("exact", [EXPONENTIAL, BELL, HEAVY], ids=["exponential", "bell", "heavy"])
def test_a_far_bound_does_not_draw_the_mean_away(exact: np.ndarray) -> None:
    """By .8, .8 and 1.2 in the mean of these draws; without tails it is 2.0, 2.1 and 3.4."""
    true = exact @ MIDDLE / exact.sum()
    means = np.array([mass @ MIDDLE / mass.sum() for mass in (released(exact, 65.0, seed) for seed in range(12))])
    assert np.abs(means - true).mean() < 1.6


@pytest.mark.parametrize("exact", [EXPONENTIAL, BELL], ids=["exponential", "bell"])
def test_hardly_anybody_is_where_nobody_is(exact: np.ndarray) -> None:
    """Of 7,000 people none is beyond 200. By these draws it is 3 and 5; without tails it is 36 and 65."""
    beyond = [released(exact, 65.0, seed)[200:].sum() for seed in range(12)]
    assert np.mean(beyond) < 15


def test_both_ends_are_alike() -> None:
    rng = np.random.default_rng(3)
    noised = BELL + 65 * rng.standard_normal(CELLS)
    widths = np.ones(CELLS)
    ahead, back = (denoise(counts, 65.0, widths, 7000.0).mass for counts in (noised, noised[::-1]))
    assert back[::-1] == pytest.approx(ahead, rel=0.05, abs=0.5)


def test_people_who_are_far_away_stay_there() -> None:
    far = BELL + shares(700, np.exp(-((MIDDLE - 300) ** 2) / (2 * 10**2)))
    for seed in range(6):
        assert released(far, 20.0, seed)[260:340].sum() == pytest.approx(700, rel=0.2)


def test_what_is_known_stays_as_it_is() -> None:
    curve = np.exp(-MIDDLE / 15)
    fitted = Fitted(curve, np.zeros(CELLS), curve[:, None], EDGES, np.ones(CELLS))
    known = with_tails(fitted, np.array([[1e-4]]), lambda curves: np.zeros(curves.shape[1]))
    assert known is curve or (known == curve).all()


def test_an_even_spread_up_to_the_bound_has_no_tail() -> None:
    curve = np.ones(CELLS)
    slope = curve[:, None] * (MIDDLE[:, None] > 390)
    fitted = Fitted(curve, np.zeros(CELLS), slope, EDGES, np.ones(CELLS))
    assert (with_tails(fitted, np.array([[4.0]]), lambda curves: np.zeros(curves.shape[1])) == curve).all()


def unknown_beyond(cell: int, height: float = 0.0) -> Fitted:
    """An exponential curve of scale 10 whose mass beyond a cell nothing is known of."""
    curve = np.exp(-MIDDLE / 10) * 700
    curve[cell:] += height
    slope = np.where(np.arange(CELLS) >= cell, curve, 0.0)[:, None]
    return Fitted(curve, np.zeros(CELLS), slope, EDGES, np.ones(CELLS))


@settings(max_examples=30)
@given(st.integers(30, 60), st.floats(0.1, 1))
def test_the_mass_beyond_is_kept_and_falls(cell: int, height: float) -> None:
    fitted = unknown_beyond(cell, height)
    laid = with_tails(fitted, np.array([[1.0]]), lambda curves: np.zeros(curves.shape[1]))
    assert laid.sum() == pytest.approx(fitted.curve.sum())
    assert (laid > 0).all()
    begin = int(np.flatnonzero(laid != fitted.curve)[0])
    assert 5 < begin <= cell
    assert (np.diff(laid[begin:]) < 0).all()
    assert laid[300:].sum() < 0.5 * fitted.curve[300:].sum()


def test_what_speaks_against_every_tail_keeps_the_fit() -> None:
    fitted = unknown_beyond(40, 3.0)

    def loss(curves: np.ndarray) -> np.ndarray:
        return np.abs(curves - fitted.curve[:, None]).sum(axis=0)

    assert (with_tails(fitted, np.array([[1.0]]), loss) == fitted.curve).all()
    assert (with_tails(fitted, np.array([[1.0]]), lambda curves: 0.001 * loss(curves)) != fitted.curve).any()


def test_the_shape_follows_what_was_counted() -> None:
    fitted = unknown_beyond(40, 0.5)
    start = int(np.flatnonzero(with_tails(fitted, np.array([[1.0]]), lambda c: 0 * c.sum(axis=0)) != fitted.curve)[0])
    beyond = []
    for shape in (0.0, 0.5):
        tail = _pareto(EDGES[start:] - start, shape, 10 * (1 + shape), np.ones(CELLS - start))
        aim = np.append(fitted.curve[:start], fitted.curve[start:].sum() * tail)
        laid = with_tails(fitted, np.array([[1.0]]), lambda c, aim=aim: ((c - aim[:, None]) ** 2).sum(axis=0) / 100)
        beyond.append(laid[150:].sum() / aim[start:].sum())
    assert 20 * beyond[0] < beyond[1] < 0.1


def test_a_tail_keeps_the_rhythm() -> None:
    rhythm = np.where(np.arange(CELLS) % 10 == 0, 3.0, 1.0)
    plain = unknown_beyond(40, 0.3)
    fitted = Fitted(plain.curve * rhythm, plain.singles, plain.slope * rhythm[:, None], EDGES, rhythm)
    laid = with_tails(fitted, np.array([[1.0]]), lambda curves: 0 * curves.sum(axis=0))
    assert laid[200] / laid[201] == pytest.approx(3, rel=0.05)


def test_where_single_values_hold_most_people_they_tell_how_the_column_ends() -> None:
    """Of 7,000 people 6,300 have one of four values: by the curve alone the column ends hundreds of cells later."""
    exact = shares(700, np.ones(CELLS))
    singles = np.zeros(CELLS)
    singles[[60, 70, 80, 90]] = 1575
    fitted = Fitted(exact, singles, exact[:, None], EDGES, np.ones(CELLS))
    laid = with_tails(fitted, np.array([[1.0]]), lambda curves: 0 * curves.sum(axis=0))
    assert laid[150:].sum() < 0.05 * exact[150:].sum()
    alone = Fitted(exact, np.zeros(CELLS), exact[:, None], EDGES, np.ones(CELLS))
    assert (with_tails(alone, np.array([[1.0]]), lambda curves: 0 * curves.sum(axis=0)) == exact).all()


def test_a_single_value_is_no_reason_for_a_tail_or_against_one() -> None:
    """People of one value far out are seen in their run too, and are not taken for the curve's."""
    for seed in range(4):
        held = BELL.copy()
        held[330] += 1000
        mass = released(held, 65.0, seed)
        assert mass[330] == pytest.approx(1000, rel=0.2)
        assert np.delete(mass, 330)[250:].sum() < 30


def test_a_value_far_from_all_others_stands_out_by_more() -> None:
    counts = BELL.copy()
    for cell in (90, 350):
        noised = counts.copy()
        noised[cell] += 3.9 * 30
        alone = denoise(noised, 30.0, np.ones(CELLS), counts.sum()).stands_out[cell]
        assert alone == (cell == 90)


def test_a_value_that_its_run_has_no_room_for_does_not_stand_out() -> None:
    noised = BELL.copy()
    noised[300] += 5 * 30
    runs = np.bincount(RUNS, BELL)
    for held, stands_out in ((150.0, True), (0.0, False)):
        counted = runs.copy()
        counted[RUNS[300]] += held
        found = denoise(noised, 30.0, np.ones(CELLS), 7000.0, binned=[BinCounts(RUNS, counted, 20.0)])
        assert found.stands_out[300] == stands_out


@pytest.mark.parametrize("shape", [0.0, 0.25, 0.5])
def test_the_scale_is_that_of_the_tail_it_was_read_off(shape: float) -> None:
    """Excesses over a later threshold are Pareto of the same shape again; the scale has grown by shape times length."""
    scale, length = 10.0, 17.0
    survival = np.exp(-length / scale) if shape == 0 else (1 + shape * length / scale) ** (-1 / shape)
    assert _scale(length, -np.log(survival), shape) == pytest.approx(scale + shape * length)


def test_a_pareto_tail_by_its_distribution() -> None:
    from scipy.stats import genpareto

    edges = np.array([0.0, 1.0, 5.0, 20.0, 60.0])
    for shape in (0.0, 0.25, 0.5):
        exact = np.diff(genpareto(shape, scale=7).cdf(edges))
        assert _pareto(edges, shape, 7.0, np.ones(4)) == pytest.approx(exact / exact.sum())
