"""How the synthetic table was made, in steps that a stranger could repeat."""

from __future__ import annotations

from fractions import Fraction

from datasheets.automatic import images
from datasheets.reading import Reading, number, plural
from datasheets.statements import (
    and_steps,
    audit_in_words,
    critic_in_words,
    events_in_words,
    held_out_in_words,
    promise_in_words,
    released,
    row_count_in_words,
)
from synth.privacy import budget
from synth.tables.lattice import RUNS, RUNS_FROM
from synth.tables.triple_choice import TRIPLE_GROUPS


def procedure_in_words(read: Reading) -> str:
    """The whole procedure: measurements, bins, fit and draw, with every setting that the facts hold."""
    if read.of_images:
        return images.procedure(read)
    return "\n\n".join(
        (
            f"Procedure, as carried out by {read('run.software')}; constants not named here are that version's.",
            _measurements(read),
            _bins(read),
            _fit(read),
            *([_critic(read)] if read("model.critic") is not None else []),
            _draw(read),
            f"Audit. {audit_in_words(read)}",
            *([f"Score. {held_out_in_words(read)}"] if read("quality.held_out") is not None else []),
            f"What protects the source happens in the noised releases{and_steps(read)}. Everything after them sees"
            " noised numbers only, and is post-processing. The noise itself:"
            f" {read('privacy.noise_protection')} {promise_in_words(read)}",
        )
    )


def _measurements(read: Reading) -> str:
    target, classes = read("data.target"), read("data.classes")
    by_class = f"within each of the {number(classes)} classes of {target}" if target else "over all rows"
    measured, candidates = read("model.measured_pairs"), read("model.candidate_pairs")
    pair = f"{number(measured)} of {plural(candidates, 'candidate pair')} of columns"
    meaning = {
        budget.BOUNDS: (
            "for each column whose bounds are estimated, two histograms over the whole of what its kind can hold: on a"
            " public ladder (1, 2 and 5 times each power of ten on both sides of zero, or decades of years) and on a"
            " finer one (at most fifteen parts of each, or years); a row adds one to one cell of each. Bounds reach"
            " over what stands out of the noise."
        ),
        budget.TARGET_BINS: (
            "the histogram of the target on a fine public grid, by which the target is cut into"
            " classes of about equal mass."
        ),
        budget.FINE: (
            "the histogram of every learned column on a fine public grid (numbers and dates) or its"
            " declared levels, over all rows, and the class sizes. Missing is a level of its own. Of numbers and dates"
            f" with {RUNS_FROM} or more grid cells, also how many rows fall into each of {RUNS} runs of them. They"
            " place the bins."
        ),
        budget.ONE_WAY: f"the histogram of every learned column on its bins, {by_class}.",
        budget.DETAIL: "how often single numbers and dates occur, and how coarsely they are rounded.",
        budget.SELECTION: (
            "which pairs of columns are measured. The score of a candidate is the L1 distance of its table of counts,"
            " on bins merged to about a dozen groups a column, from the one expected if the two were independent within"
            " classes, less what sampling alone would make of it and less what the noise of measuring the pair would"
            " leave. The first choices join all columns to one tree, the others are free; the scores are not kept."
            + (
                " Pairs that a declared rule joins are measured without a choice, up to half."
                if read("data.rules")
                else ""
            )
        ),
        budget.PAIRS_BY_CLASS: f"for {pair}, the table of counts of their bins, {by_class}.",
        budget.PAIRS_SUMMED: f"for {pair}, the table of counts of their bins over all rows.",
        budget.TRIPLE_SELECTION: (
            "which triples of columns are measured. The score of a candidate is the L1 distance of its table of counts,"
            f" on bins merged to about {TRIPLE_GROUPS} groups a column, from the table of largest entropy that agrees"
            " with what is known of its three pairs, less what sampling alone would make of it and less what the noise"
            " of measuring the triple would leave; the scores are not kept."
        ),
        budget.TRIPLES: (
            f"for {plural(read('model.measured_triples'), 'triple')} of columns, the table of counts of these groups"
            " over all rows."
        ),
        budget.CRITIC: "the gradients of a critic on the rows of the source, as described below.",
        budget.ACCURACY: (
            "how many rows of held-out people a classifier trained on synthetic rows gets right, and how many wrong, as"
            " described below; a row adds one to one of the two."
        ),
    }
    steps = [f"- {event.name}: {meaning.get(event.name, 'a vector of counts.')}" for event in read("privacy.events")]
    text = (
        "Measurements. These releases, in this order, are all that was learned from the source; a row"
        " adds at most one to one cell of each table, and moves a score by at most one. A person has at most"
        f" {plural(read('privacy.max_rows_per_person'), 'row')}.\n\n"
        + "\n".join(steps)
        + "\n\nMechanism, sensitivity and noise of each release, over all its tables jointly:\n\n"
        + events_in_words(read)
    )
    runs = Fraction(budget.COARSE_SHARE).limit_denominator(100)
    estimated = " (as that many where bounds are estimated)" if released(read, budget.BOUNDS) else ""
    return text + (
        "\n\nTables with more cells get less noise where the noise is stated in units of each table's own: with weight"
        " w = cells^(2/3), the noise standard deviation of a table in rows is the square root of (the sum of w over the"
        " tables of the release, divided by the table's own w), divided by the release's sensitivity above, times the"
        f" most rows a person has ({number(read('privacy.max_rows_per_person'))}). A fine histogram of numbers or dates"
        f" counts as {budget.SMOOTH_CELLS} cells at most{estimated}, one of levels as {budget.MOST_LEVELS:,}, and"
        f" tables by class as that of one class. Of the w of a column whose runs of cells are counted too, the runs"
        f" have {runs} and the cells {1 - runs}."
    )


def _bins(read: Reading) -> str:
    counts = read("model.bins").values()
    between = f" (here {number(min(counts))} to {number(max(counts))} a column)" if counts else ""
    return (
        "Bins and class sizes. From the noised fine histograms and runs of cells alone, taken for a smooth curve (the"
        " logarithm of the density is a penalised cubic spline, fitted at the known noise level) with single values"
        " that stand out of it, with a factor for each last digit (of days, day of the week) where the counts show any,"
        " with a generalised Pareto tail at either end from where the mass beyond is not known to within a quarter"
        " (unless the counts speak for something else there), and, where all counts together show that cells lie off"
        " it, as far as each is likely to (empirical Bayes), grid cells with much mass stay alone and runs of light"
        " cells are merged until they stand out from the noise; levels too rare"
        f" against the noise are merged in runs, in their declared order{between}. How values lie within a bin"
        " follows from the same curve, fitted to all histograms of the column. Class sizes are the precision-weighted"
        " mean of the noised class totals, none below zero; together they are as many as their own sum and the sums of"
        f" the noised fine histograms say, by least squares. {row_count_in_words(read)}"
    )


def _fit(read: Reading) -> str:
    return (
        f"Fit. The generator ({read('model.kind')}) has {plural(read('model.parameters'), 'parameter')}"
        f" in {plural(read('model.members'), 'member')}, each fitted to the same measurements from a"
        " start of its own. A member takes a latent point of"
        f" {plural(read('model.latent_size'), 'number')} and the class, passes them through two hidden"
        f" layers of width {number(read('model.hidden_size'))} (linear, layer norm, ReLU, joined with"
        " their input), and ends in one softmax over bins per column; given the latent point and the"
        f" class, columns are independent. A fixed bank of {number(read('model.latent_points'))} latent"
        " points is used whole in every step. The loss is the squared residual between the model's and"
        " the noised tables, weighted by the precision of each measurement and divided by the number"
        " of measured cells; pairs that were not measured are drawn weakly towards the product of"
        " their single columns within classes, where what tells classes apart is shrunk as far as noise explains it"
        " (empirical Bayes over all columns) and classes together have the shares of the whole; the fit starts there"
        " too, and a class that few people are in is held near it. The loss is"
        f" minimised by Adam in at most {plural(read('model.steps'), 'step')} at"
        f" learning rate {number(read('model.learning_rate'))}, with a short warm-up, cosine decay and"
        " averaged weights; the step that is kept is chosen on an independent part of the noise. The"
        f" fit ended at a mean squared residual of {number(read('model.chi'))} times the noise"
        " variance. Weights and configuration are in model/."
    )


def _critic(read: Reading) -> str:
    return (
        f"Refinement. A critic with {plural(read('model.critic.parameters'), 'parameter')} (two hidden layers of"
        f" width {number(read('model.critic.hidden_size'))}: linear, layer norm, ReLU; then one score) sees whole"
        " rows of bins with their class and learns to tell source from generated rows by the hinge loss."
        f" {critic_in_words(read, 'bins and class sizes')}"
        " After the first tenth of the steps the generators follow, one step each time: they raise the critic's"
        f" mean score, with weight {number(read('model.critic.weight'))}, while the loss of the fit holds them where"
        f" the fit ended. Both use Adam at learning rate {number(read('model.critic.learning_rate'))}, the"
        " generators with cosine decay. Their last weights, averaged over the steps, are the model; none were"
        f" chosen by a score. Their mean squared residual is {number(read('model.critic.chi'))} times the noise"
        " variance."
    )


def _draw(read: Reading) -> str:
    return (
        f"Draw. {plural(read('data.rows'), 'row')} (number from: {read('data.rows_chosen_by')}) are"
        " divided over the classes by their sizes. A row picks a latent point of any member, then each"
        " column's bin, then a value inside the bin by the noised fine histogram. Sweeps over the rows"
        " propose new bins from the row's own distributions and keep those that bring the pair counts"
        " nearer to the model's, which removes sampling noise. Values are decoded to the declared"
        " types; ids are made afresh."
    )
