"""Automatic answers of the composition section."""

from __future__ import annotations

from datasheets.automatic import images
from datasheets.reading import Automatic, Reading, column_names, exact, listed, number, plural
from datasheets.statements import (
    events_in_words,
    held_out_by_coins,
    held_out_in_words,
    neighbours_in_words,
    not_covered_in_words,
    population_in_words,
    promise_in_words,
    replace_one_in_words,
    row_count_in_words,
    total_in_words,
    unit_in_words,
)


def _instances(read: Reading) -> str:
    return (
        f"Each instance is one synthetic row of {plural(len(read('data.columns')), 'column')}, drawn"
        f" from a generative model of the table {read('run.dataset')}. No row is a person, and no row"
        " was taken from the source. A row may agree with a real record by chance; that says nothing"
        " about whether the record was in the source beyond what epsilon and delta allow."
    )


def _count_synthetic(read: Reading) -> str:
    chosen = {
        "noised count": _noised_count(read),
        "declared row count": "the row count that the steward declared as public",
        "config": "the configuration; it says nothing about the size of the source",
    }[read("data.rows_chosen_by")]
    return f"{plural(read('data.rows'), 'synthetic row')}. The number was taken from {chosen}."


def _noised_count(read: Reading) -> str:
    if held_out_by_coins(read):
        return (
            "a noised, charged count of the rows that coins had not held out, divided by the public share of such rows;"
            " it is not the exact number of source rows"
        )
    return "a noised, charged count of the source; it is not the exact number of source rows"


def _sample(read: Reading) -> str:
    return (
        f"The {plural(read('data.rows'), 'row')} are a sample from a generative model, not a sample of"
        " the source's rows. The model can draw any number of further rows at no further privacy cost;"
        " more rows do not carry more information about the source. The whole of this sample is"
        f" published in {plural(len(read('data.files')), 'file')}."
    )


def _features_synthetic(read: Reading) -> str:
    columns = read("data.columns")
    kinds = dict.fromkeys(str(column["kind"]) for column in columns)
    lines = [f"- {kind}: {listed(column_names(columns, kind))}" for kind in kinds]
    text = (
        f"{plural(len(columns), 'column')} with the types of the public schema; dictionary.md describes"
        " each.\n\n" + "\n".join(lines)
    )
    rules = read("data.rules")
    if rules:
        text += "\n\nEvery row meets these rules, which the steward declared:\n\n"
        text += "\n".join(f"- {rule}" for rule in rules)
    return text


def _features_source(read: Reading) -> str:
    ids = column_names(read("data.columns"), "id")
    text = "Only the columns that the steward declared in schema.yaml were read; any others were not."
    if ids and read("privacy.privacy_unit") == "row":
        text += f" Identifier columns ({listed(ids)}) were not read either; the synthetic ids are made afresh."
    elif ids:
        text += (
            f" Of the identifier columns ({listed(ids)}) only the one that tells people apart was read, to bound how"
            " many rows each person contributes; its values were not kept, and the synthetic ids are made afresh."
        )
    return text


def _labels(read: Reading) -> str:
    target = read("data.target")
    if target is None:
        return "No column is declared as target."
    return (
        f"Yes: the column {target}, with {plural(read('data.classes'), 'class', 'classes')}. The generator is"
        " conditioned on it. The share of each class follows noised or declared numbers, never exact"
        " counts."
    )


def _missing(read: Reading) -> str:
    if read.of_images:
        return images.missing()
    nullable = [str(column["name"]) for column in read("data.columns") if column.get("nullable")]
    if not nullable:
        return (
            "No. No column is declared nullable, so every cell holds a value. Where a source cell was"
            " empty, a random value of the declared domain was counted in its place; such cells cannot"
            " be told apart here."
        )
    return (
        f"Cells may be missing in: {listed(nullable)}. Missing is modelled as a value of its own, so"
        " that how often cells are missing, and together with what, follows the noised measurements. A"
        " source value outside its declared domain may also have become missing; such cells cannot be"
        " told apart here."
    )


def _relationships(read: Reading) -> str:
    ids = column_names(read("data.columns"), "id")
    text = "No. Rows are drawn together from the model, and no row refers to another."
    return text + (f" The ids ({listed(ids)}) are fresh and link nothing." if ids else "")


def _splits(read: Reading) -> str:
    text = (
        f"None. All {plural(read('data.rows'), 'row')} come from the same model, so a model tested on"
        " held-out synthetic rows is tested for agreement with the generator, not for performance on"
        " people. Train on the whole and test on real held-out rows where that is possible."
    )
    return text if read("quality.held_out") is None else f"{text}\n\nOn real people: {held_out_in_words(read)}"


def _errors(read: Reading) -> str:
    if read.of_images:
        return images.errors(read)
    text = (
        "Noise was added on purpose, to every measurement that the table was made from:\n\n"
        f"{events_in_words(read)}\n\n"
        "The generator met these noised measurements with a mean squared residual of"
        f" {number(read('model.chi'))} times the noise variance (1 means fitted to the noise). Over"
        " single columns the synthetic rows lie at a mean distance of"
        f" {read('quality.mean_one_way_distance'):.4f} from the noised measurements, where noise alone"
        f" would show {read('quality.mean_one_way_noise'):.4f}"
    )
    pairs, noise = read("quality.mean_two_way_distance"), read("quality.mean_two_way_noise")
    if pairs is not None and noise is not None:
        text += f"; over measured pairs of columns {pairs:.4f}, where noise alone would show {noise:.4f}"
    return text + (
        ". Numbers and dates were modelled in bins, so detail inside a bin is approximate; where noise hides how a"
        " column ends, its largest and smallest values follow an assumed tail."
        f" {number(read('quality.valid_rows'))} of {plural(read('quality.rows'), 'row')} have the"
        " declared type and domain in every cell. Dependence among columns that was not measured is"
        " the model's guess."
    )


def _self_contained(read: Reading) -> str:
    return (
        f"Self-contained. The rows are in {listed(read('data.files'))}; the schema, the data dictionary"
        " and the model lie beside them. Nothing outside the bundle is needed to read it or to draw"
        " more rows."
    )


def _confidential(read: Reading) -> str:
    return (
        "No source record was copied. What the bundle as a whole can reveal because any one"
        f" {read('privacy.privacy_unit')} was in the source is bounded by epsilon ="
        f" {exact(read('privacy.epsilon'))}, delta = {exact(read('privacy.delta'))}. Patterns that hold"
        " for many people are kept on purpose; where such a pattern is itself confidential, this"
        " bundle does not hide it."
    )


def _offensive(read: Reading) -> str:
    categorical = column_names(read("data.columns"), "categorical")
    if not categorical:
        return "No column holds free text; every cell is a number, a date, a truth value or a fresh id."
    return (
        "No column holds free text. Words appear only as categories that the steward declared"
        f" ({listed(categorical)}); dictionary.md lists them all."
    )


def _subpopulations(read: Reading) -> str:
    columns = read("data.columns")
    groups = column_names(columns, "categorical") + column_names(columns, "boolean")
    found = (
        f"Columns that divide rows into groups: {listed(groups)}." if groups else "No column divides rows into groups."
    )
    return found + (
        " The share of each group follows noised measurements. The smaller a group, the larger the"
        " noise beside it, and what is said about a small group, or about the meeting of several"
        " groups, is not to be trusted."
    )


def _identification(read: Reading) -> str:
    return (
        "No row stands for a person, so a row cannot be identified as one. How much more can be"
        " inferred about someone because they were in the source than if they had not been, with any"
        f" other data at hand, is bounded. {promise_in_words(read)} What holds for people at large can"
        " be inferred about someone either way."
        " Not covered by this bound:\n\n" + "\n".join(f"- {item}" for item in not_covered_in_words(read))
    )


def _sensitive(read: Reading) -> str:
    described = [str(column["name"]) for column in read("data.columns")]
    return (
        f"The columns carry the names and meanings of the source's ({listed(described)}), and a column"
        " that is sensitive there is sensitive here as a statement about groups. No cell is a"
        " statement about a person. The software does not judge which columns are sensitive."
    )


def _comments(read: Reading) -> str:
    return "\n\n".join(
        (
            f"The privacy statement of this run. {promise_in_words(read)}",
            f"Privacy unit: {unit_in_words(read)}",
            f"Neighbouring relation: {neighbours_in_words(read)} {replace_one_in_words(read)}",
            f"Accounting: {read('privacy.accountant')} {total_in_words(read)}",
            f"Protection of the noise itself: {read('privacy.noise_protection')}",
            f"Population: {population_in_words(read)}",
            f"Ledger: the chain's head after this run is {read('privacy.ledger_head')}.",
        )
    )


ANSWERS: tuple[Automatic, ...] = (
    Automatic("composition.instances", "synthetic", _instances),
    Automatic("composition.count", "source", row_count_in_words),
    Automatic("composition.count", "synthetic", _count_synthetic),
    Automatic("composition.sample", "synthetic", _sample),
    Automatic("composition.features", "source", _features_source),
    Automatic("composition.features", "synthetic", _features_synthetic),
    Automatic("composition.labels", "synthetic", _labels),
    Automatic("composition.missing", "synthetic", _missing),
    Automatic("composition.relationships", "synthetic", _relationships),
    Automatic("composition.splits", "synthetic", _splits),
    Automatic("composition.errors", "synthetic", _errors),
    Automatic("composition.self_contained", "synthetic", _self_contained),
    Automatic("composition.confidential", "synthetic", _confidential),
    Automatic("composition.offensive", "synthetic", _offensive),
    Automatic("composition.subpopulations", "synthetic", _subpopulations),
    Automatic("composition.identification", "synthetic", _identification),
    Automatic("composition.sensitive", "synthetic", _sensitive),
    Automatic("composition.comments", "synthetic", _comments),
)
