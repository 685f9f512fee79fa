"""Automatic answers on motivation, collection and preprocessing: how the synthetic table came about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasheets.automatic import images
from datasheets.automatic.procedure import procedure_in_words
from datasheets.reading import Automatic, Reading, exact, listed, number, plural
from datasheets.statements import bounds_in_words, row_count_in_words


def _purpose(read: Reading) -> str:
    return (
        f"To let people who may not see the table {read('run.dataset')} work with data of its shape:"
        " explore it, write and test analyses, and train models, while the difference that any single"
        f" {read('privacy.privacy_unit')} of it can make to the outcome is bounded by epsilon ="
        f" {exact(read('privacy.epsilon'))} and delta = {exact(read('privacy.delta'))}. Why this table"
        " was chosen is for the steward to say."
    )


def _creators(read: Reading) -> str:
    return (
        f"The synthetic table was computed by {read('run.software')} in the run {read('run.run_id')}"
        f" ({read('run.name')}), created {read('run.created')}. Who ran it, and for whom, is for the"
        " steward to say."
    )


def _acquisition(read: Reading) -> str:
    if read.of_images:
        return images.acquisition(read)
    return (
        "Derived. Each row was drawn from a generative model that was fitted to noised summary tables"
        f" of the source. Nothing was observed or reported for it. {read('quality.valid_rows'):,} of"
        f" {plural(read('quality.rows'), 'row')} were verified to hold the declared type and domain in"
        " every cell."
    )


def _sampling(read: Reading) -> str:
    return (
        "Probabilistic: rows are drawn from the generator, stratified by class, as described above."
        f" They are not a sample of source rows. {row_count_in_words(read)}"
    )


def _timeframe(read: Reading) -> str:
    return (
        f"Created {read('run.created')}. Any date inside a row is synthetic and is no evidence of when"
        " something happened to anyone."
    )


def _revocation(read: Reading) -> str:
    return (
        "No row belongs to a person, so none can be withdrawn. Withdrawing from the source takes"
        f" effect in later runs; what this run may reveal because one {read('privacy.privacy_unit')}"
        f" was in the source stays bounded, at epsilon = {exact(read('privacy.epsilon'))}, delta ="
        f" {exact(read('privacy.delta'))}."
    )


def _steps(read: Reading) -> str:
    if read.of_images:
        return images.preprocessing(read)
    columns = read("data.columns")
    rules = [f"- {column['name']}: {_outside(column)}" for column in columns if column.get("outside")]
    bins = [f"{name} {number(count)}" for name, count in read("model.bins").items()]
    text = (
        "Before measuring, every source cell was mapped into its declared domain. By default numbers"
        " and dates outside the bounds move to the nearest bound; what cannot be read, is not a"
        " declared level, or is empty where nothing may be missing becomes missing where the column is"
        " nullable, else a random value of the declared domain. How often this happened is not"
        " published."
    )
    if estimated := bounds_in_words(read):
        text += f"\n\n{estimated}"
    if rules:
        text += "\n\nColumns with a rule of their own:\n\n" + "\n".join(rules)
    return text + (
        "\n\nValues were grouped into bins for the pair tables (column and number of bins:"
        f" {listed(bins)}). The bins were cut from noised histograms."
    )


def _outside(column: Mapping[str, Any]) -> str:
    return {
        "clip": "values outside the bounds move to the nearest bound",
        "missing": "values outside the domain become missing",
        "other": "values outside the domain become the level that stands for all others",
        "refuse": "a value outside the domain would have stopped the run",
    }.get(str(column["outside"]), str(column["outside"]))


def _raw(read: Reading) -> str:
    return (
        "This bundle holds no source row and no exact statistic of the source. Its rows"
        f" ({listed(read('data.files'))}) are the model's output, decoded to the declared types and not"
        " altered since."
    )


def _software(read: Reading) -> str:
    libraries = [f"{name} {version}" for name, version in sorted(read("run.libraries").items())]
    return f"The synthetic table was made by {read('run.software')}, with {listed(libraries)}."


ANSWERS: tuple[Automatic, ...] = (
    Automatic("motivation.purpose", "synthetic", _purpose),
    Automatic("motivation.creators", "synthetic", _creators),
    Automatic("collection.acquisition", "synthetic", _acquisition),
    Automatic("collection.mechanisms", "synthetic", procedure_in_words),
    Automatic("collection.sampling", "synthetic", _sampling),
    Automatic("collection.timeframe", "synthetic", _timeframe),
    Automatic("collection.revocation", "synthetic", _revocation),
    Automatic("preprocessing.steps", "source", _steps),
    Automatic("preprocessing.raw", "synthetic", _raw),
    Automatic("preprocessing.software", "synthetic", _software),
)
