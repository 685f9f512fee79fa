"""Automatic answers on uses, distribution and maintenance."""

from __future__ import annotations

from datasheets.automatic import images
from datasheets.insight import BEYOND
from datasheets.reading import Automatic, Reading, exact, number, plural
from datasheets.statements import not_covered_in_words, population_in_words, promise_in_words, released
from synth.privacy import budget
from synth.tables.triple_choice import TRIPLE_GROUPS

INTENDED_USES = (
    "Exploring the shape of the data and planning an analysis before access to the source is asked for.",
    "Writing, testing and teaching software and analyses that will later run on the source.",
    "Training and comparing models as a first approximation, to be confirmed on real data.",
    "Estimating shares of single columns and of measured pairs of columns in groups that are large against the noise.",
)

FORBIDDEN_USES = (
    "Decisions about individual people. No row is a person.",
    "Linking rows to people or to other data about people, or trying to find out who was in the source.",
    "Conclusions about small groups, rare values or single unusual rows.",
    "Publishing estimates, tests or standard errors as if the rows had been observed.",
    "Claims of safety, efficacy or compliance that rest on this table alone.",
)


def intended_uses(read: Reading) -> tuple[str, ...]:
    """What the rows are for."""
    return images.INTENDED_USES if read.of_images else INTENDED_USES


def measured_in_words(read: Reading) -> str:
    """Which dependence was measured, and how well."""
    if read.of_images:
        return images.measured(read)
    measured, candidates = read("model.measured_pairs"), read("model.candidate_pairs")
    triples = read("model.measured_triples")
    beside = ", but for those in measured triples," if triples else ""
    if not measured:
        return "No pair of columns was measured: dependence between columns is the model's guess."
    pairs = read("quality.two_way")
    text = f"{number(measured)} of {plural(candidates, 'candidate pair')} of columns were measured"
    if pairs:
        noise = [score.noise for score in pairs]
        text += (
            "; noise alone moves a measured pair table by a total variation distance between"
            f" {min(noise):.4f} and {max(noise):.4f}"
        )
    text += ". quality.json lists each, with its noise."
    if measured < candidates:
        text += f" Dependence between columns of any other pair{beside} is the model's guess."
    by_class = released(read, budget.PAIRS_BY_CLASS)
    beyond = f"Beyond pairs within the classes of {read('data.target')}, dependence" if by_class else "Dependence"
    if not triples:
        return text + f" {beyond} among three or more columns at once was not measured."
    return text + (
        f" {plural(triples, 'triple')} of columns {'was' if triples == 1 else 'were'} measured too, on about"
        f" {TRIPLE_GROUPS} groups of the bins of each. {beyond} among three or more other columns at once was not"
        " measured."
    )


def insights_in_words(read: Reading) -> tuple[str, ...]:
    """What the public report shows beyond single scores; nothing for images."""
    if read.of_images:
        return ()
    insight = read("quality.insight")
    if insight is None or not insight.pairs:
        return ()
    clear = sum(pair.dependence_z >= BEYOND for pair in insight.pairs)
    off = sum(pair.residual_z >= BEYOND for pair in insight.pairs)
    text = (
        f"Of {plural(len(insight.pairs), 'measured pair')} of columns (the target with each other column among them)"
        f" {number(clear)} show a dependence beyond noise and chance, and in {number(off)} the model is farther from"
        " the measurement than noise explains: quality.html shows which, and quality.json has each."
    )
    if insight.contrast is not None:
        text += f" Both also tell how each column changes with {insight.contrast.by}."
    return (f"{text} synth contrast tells, for any two conditions, what changes and what of it is the model's guess.",)


def _tasks(read: Reading) -> str:
    return f"Intended uses of these {plural(read('data.rows'), 'row')}:\n\n" + "\n".join(
        f"- {use}" for use in intended_uses(read)
    )


def _impact(read: Reading) -> str:
    return (
        "The table repeats the patterns of its source, with its biases and gaps in coverage, and adds"
        " noise that weighs most on small groups: error is not spread evenly over people."
        f" {measured_in_words(read)} Results for a group should be read against the noise beside it,"
        " and confirmed on real data before anyone is affected by them."
    )


def _forbidden(read: Reading) -> str:
    return (
        f"Yes. The bound (epsilon = {exact(read('privacy.epsilon'))}, delta ="
        f" {exact(read('privacy.delta'))}) protects the people in the source; it does not make the"
        " following sound:\n\n" + "\n".join(f"- {use}" for use in FORBIDDEN_USES)
    )


def guidance(read: Reading) -> tuple[str, ...]:
    """What an analyst has to know before computing anything."""
    return (
        f"The {plural(read('data.rows'), 'row')} are not observations. Standard errors, p-values and"
        " confidence intervals computed as if they were are too small, because they leave out the"
        " noise and the model's error."
        " Drawing more rows makes them smaller still and the error no smaller. Several sets drawn from the model (synth"
        " sample --sets) show the sampling of rows, and the combining rules of multiple imputation (synth.combine) add"
        " it up with that of the source; but all sets share the model and its noise, which no rule of that kind sees"
        " (Räisä, Jälkö, Kaski and Honkela 2023, on noise-aware inference). Where the noise of an estimate is stated,"
        " add its variance.",
        "Small groups are untrustworthy. Noise is the same in every cell of a table, so it drowns"
        " small counts"
        " first; see the standard deviation of each release under errors and noise.",
        measured_in_words(read),
        *insights_in_words(read),
        "A rare combination in the table may not exist in the source, and one in the source may be absent here.",
        "Do not link rows to individuals, and do not read a row as the record of anyone.",
        "Confirm on the source, or on real held-out data, whatever matters.",
    )


def _comments(read: Reading) -> str:
    return "Guidance for analysts:\n\n" + "\n".join(f"- {item}" for item in guidance(read))


def _parties(read: Reading) -> str:
    return (
        f"The bundle is made so that it can be handed to anyone: {promise_in_words(read)} Whether a"
        " person has approved it for release, and who, is in attestation.json. Not covered by the"
        " bound:\n\n" + "\n".join(f"- {item}" for item in not_covered_in_words(read))
    )


def _means(read: Reading) -> str:
    return (
        f"As a folder (a bundle): the rows in {plural(len(read('data.files')), 'Parquet file')}, the"
        " schema, the model and these documents. manifest.json lists the SHA-256 of every file, so"
        " that a copy can be verified. A DOI, where there is one, is for the steward to name."
    )


def _date(read: Reading) -> str:
    return f"The bundle was created {read('run.created')}. When it is handed out is for the steward to say."


def _updates(read: Reading) -> str:
    return (
        f"This bundle (run {read('run.run_id')}) does not change. A correction or a new version is a"
        " new run and a new bundle, and is charged to the same people; drawing more rows from the"
        f" model costs nothing. {population_in_words(read)}"
    )


def _retention(read: Reading) -> str:
    return (
        f"No row belongs to a person. The bound (epsilon = {exact(read('privacy.epsilon'))}, delta ="
        f" {exact(read('privacy.delta'))}) does not expire, and no later knowledge or computing power"
        " weakens it; further releases from the same people add to it."
    )


ANSWERS: tuple[Automatic, ...] = (
    Automatic("uses.tasks", "synthetic", _tasks),
    Automatic("uses.impact", "synthetic", _impact),
    Automatic("uses.forbidden", "synthetic", _forbidden),
    Automatic("uses.comments", "synthetic", _comments),
    Automatic("distribution.parties", "synthetic", _parties),
    Automatic("distribution.means", "synthetic", _means),
    Automatic("distribution.date", "synthetic", _date),
    Automatic("maintenance.updates", "synthetic", _updates),
    Automatic("maintenance.retention", "synthetic", _retention),
)
