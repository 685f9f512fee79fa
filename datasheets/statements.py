"""The privacy statement in words: one wording for the datasheet, the registry entry and the metadata."""

from __future__ import annotations

from datasheets.reading import Reading, exact, listed, number, plural
from synth.privacy import budget, image_budget
from synth.privacy.events import Event, GaussianEvent, GdpEvent, HeldOutEvent, SelectionEvent

NOTHING_EXCLUDED = "None: it is asserted that nothing in this bundle lies outside the statement."


def unit_in_words(read: Reading) -> str:
    """What one privacy unit is, and what follows for a person with several of them."""
    rows = read("privacy.max_rows_per_person")
    text = f"One {read('privacy.privacy_unit')} of the source."
    if read("quality.held_out") is not None and not held_out_by_coins(read):
        text = (
            f"One {read('privacy.privacy_unit')} of the source, of the separate file of held-out people, or of both:"
            " what each of the two may tell of a person is added up."
        )
    if read("privacy.privacy_unit") == "row":
        return text + (
            " The steward declares that each person has at most one row. If a person had more, the"
            " promise would hold for each of these rows, and would be weaker for the person."
        )
    return text + (
        f" A person contributes at most {plural(rows, 'row')}, chosen at random before anything else looks at the"
        " data; the rest of a person's rows, and rows that belong to nobody, are left out. Every sensitivity is"
        " stated for a whole person. Synthetic rows are not grouped into people."
    )


def neighbours_in_words(read: Reading) -> str:
    """The neighbouring relation as a definition."""
    relation = read("privacy.neighboring_relation")
    return (
        f"{relation}: two sources are neighbours when one is the other with one"
        f" {read('privacy.privacy_unit')} added or removed."
    )


def promise_in_words(read: Reading) -> str:
    """The (ε, δ) statement as a definition."""
    return (
        f"With epsilon = {exact(read('privacy.epsilon'))} and delta = {exact(read('privacy.delta'))}:"
        " for any two neighbouring sources and any set of outcomes, the probability of an outcome in"
        " the set under one is at most e^epsilon times its probability under the other, plus delta."
        " The stated epsilon is rounded up. An outcome is everything in this bundle: rows, model,"
        " scores and documents, except for what is listed as not covered."
    )


def replace_one_in_words(read: Reading) -> str:
    """The same run under the replace-one relation."""
    return (
        f"When one {read('privacy.privacy_unit')} is replaced by another, instead of added or removed,"
        f" the same run has epsilon = {exact(read('privacy.replace_one_epsilon'))} at delta ="
        f" {exact(read('privacy.delta'))}."
    )


def row_count_in_words(read: Reading) -> str:
    """How the source's number of rows is treated."""
    declared = read("privacy.row_count")
    if declared == "private":
        return "The number of rows of the source is private. It was neither published nor used without noise."
    return (
        f"The steward declares that the source has {number(declared)} rows. The declared number was"
        " used as given, was never compared with the file, and is not protected."
    )


def noise_unit(event: GdpEvent) -> str:
    """What a noise standard deviation of 1 means for an event."""
    if event.name in {budget.FINE, budget.ONE_WAY, budget.PAIRS_BY_CLASS, budget.PAIRS_SUMMED, budget.TRIPLES}:
        # Tables that differ in noise are accounted jointly, with each over its own noise.
        return "each table's own noise"
    if event.name in {image_budget.MEANS, image_budget.SECOND_MOMENTS}:
        return "the longest vector or matrix of a picture"
    return "rows"


def event_in_words(event: Event) -> str:
    """One noised release: what, sensitivity and noise; or DP-SGD: what, steps, sampling and noise."""
    if isinstance(event, HeldOutEvent):
        return (
            f"{event_in_words(event.alone)}; about people whom coins of their own, with probability"
            f" {number(event.holdout)}, had held out of all other releases"
        )
    if isinstance(event, SelectionEvent):
        return (
            f"{event.name}: {plural(event.selections, 'choice')}, one after the other, by the exponential mechanism,"
            f" each of a candidate with probability proportional to exp(score / {number(event.noise_scale)}),"
            f" sensitivity of a score in rows {number(event.sensitivity)}"
            f" (replace-one {number(event.replace_one_sensitivity)})"
        )
    if not isinstance(event, GaussianEvent):
        return (
            f"{event.name}: {plural(event.steps, 'step')} of the Poisson-subsampled Gaussian mechanism (DP-SGD), each"
            f" person in a step by a coin of its own with probability {number(event.sample_rate)}, noise standard"
            f" deviation {number(event.noise_multiplier)} in units of the clipping norm of one person's gradient"
        )
    return (
        f"{event.name}: Gaussian mechanism, L2 sensitivity {number(event.sensitivity)} (replace-one"
        f" {number(event.replace_one_sensitivity)}), noise standard deviation"
        f" {number(event.noise_scale)}, in units of {noise_unit(event)}"
    )


def events_in_words(read: Reading) -> str:
    """Every noised release as a list, one a line."""
    return "\n".join(f"- {event_in_words(event)}." for event in read("privacy.events"))


def critic_in_words(read: Reading, left: str) -> str:
    """How the critic was trained; `left` says what its share is a share of."""
    return (
        f"It is trained by DP-SGD with {number(100 * read('model.critic.share'))} % of the budget that {left} had left:"
        f" {plural(read('model.critic.steps'), 'step')}, each person of the source in a step with"
        f" probability {number(read('model.critic.sample_rate'))}; a person's whole gradient is clipped to norm"
        f" {number(read('model.critic.max_grad_norm'))}; noise of {number(read('model.critic.noise_multiplier'))}"
        " clipping norms is added to every coordinate of the sum, which is divided by the constant"
        f" {number(read('model.critic.expected_batch_size'))} (sample rate times the noised or declared number of"
        f" people). Against it stand {number(read('model.critic.fakes'))} generated rows a step, clipped alike."
    )


def and_steps(read: Reading) -> str:
    """What protects the source beside the noised releases; nothing without a critic."""
    return " and in the noised steps of the critic" if read("model.critic") is not None else ""


def released(read: Reading, name: str) -> bool:
    """Whether a release of that name was made."""
    return any(event.name == name for event in read("privacy.events"))


def not_covered_in_words(read: Reading) -> tuple[str, ...]:
    """What the statement does not protect. An empty declaration is said aloud, never implied."""
    declared: tuple[str, ...] = read("privacy.not_covered")
    return declared or (NOTHING_EXCLUDED,)


def population_in_words(read: Reading) -> str:
    """What all runs on these people cost together, and what is left."""
    cap = read("privacy.population_cap")
    limit = "No cap has been set." if cap is None else f"The cap is epsilon = {exact(cap)}."
    shared = ", ".join(read("privacy.population_overlaps"))
    others = f" (and {shared}, which may hold some of the same people)" if shared else ""
    return (
        f"{plural(read('privacy.population_candidates'), 'charged run')} on the population"
        f" {read('run.population')}{others} so far, this one included: together epsilon ="
        f" {exact(read('privacy.population_epsilon'))} at delta ="
        f" {exact(read('privacy.population_delta'))}. {limit}"
    )


def held_out_by_coins(read: Reading) -> bool:
    """Whether people of the source were held out, so that training has seen a share of them alone."""
    return read("quality.held_out") is not None and read("quality.held_out.holdout") is not None


def held_out_in_words(read: Reading) -> str:
    """The charged score on held-out people, with everything that makes it unsure. Only where there is one."""
    unit = read("privacy.privacy_unit")
    people = (
        f"Each {unit} of the source was held out of everything else by a coin of its own with probability"
        f" {number(read('quality.held_out.holdout'))}"
        if held_out_by_coins(read)
        else "The steward gave a separate file of people for this score, who may be in the source too"
    )
    text = (
        f"{people}. A classifier, {read('quality.held_out.recipe')}, was trained on"
        f" {plural(read('quality.held_out.training_rows'), 'synthetic row')} to predict"
        f" {read('quality.held_out.target')} from the other columns, and tested on the held-out rows. How many it got"
        f" right and how many wrong was noised once: {number(read('quality.held_out.correct'))} and"
        f" {number(read('quality.held_out.wrong'))}, each with a noise standard deviation of"
        f" {number(read('quality.held_out.noise_scale'))} rows. "
    )
    base = (
        f"Always naming the most frequent class would be right in {_percent(read('quality.held_out.base_rate'))} of"
        " rows, by the noised class sizes."
    )
    if read("quality.held_out.accuracy") is None:
        return text + f"Against so few held-out rows this noise is too large to tell an accuracy. {base}"
    return text + (
        f"So its accuracy on the held-out rows is {_percent(read('quality.held_out.accuracy'))}; for what the noise"
        f" makes unsure, the {100 * read('quality.held_out.confidence'):g} % interval is"
        f" {_percent(read('quality.held_out.low'))} to {_percent(read('quality.held_out.high'))}. Beside that, another"
        " draw of as many people would move it with a standard deviation of at most about"
        f" {_percent(read('quality.held_out.sampling_error'))}. {base}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def audit_in_words(read: Reading) -> str:
    """What the run's audit of itself found; says so where there was none."""
    if read("audit") is None:
        return "This run did not audit itself."
    right = ", ".join(
        f"{number(correct)} of the {number(guesses)} surest"
        for guesses, correct in zip(read("audit.guesses"), read("audit.correct"), strict=True)
    )
    refuting = f"{100 * read('audit.refuting_confidence'):g} %"
    return (
        f"{plural(read('audit.canaries'), 'record')} drawn from the public schema (canaries) were planted among"
        f" {plural(read('audit.rows'), 'synthetic row')}, each by a fair coin of its own; the run's measurements were"
        " made of that table with fresh noise, and the coins guessed from them. Right were"
        f" {right} guesses. Whatever the mechanism, this shows epsilon at least"
        f" {number(read('audit.epsilon_lower_bound'))} with {100 * read('audit.confidence'):g} % confidence"
        " (Steinke, Nasr, Jagielski 2023). If the noise is"
        f" Gaussian, the noise that was seen shows epsilon at least {number(read('audit.noise_epsilon_lower_bound'))}"
        f" with {100 * read('audit.noise_confidence'):.10g} % confidence. Claimed for what was audited"
        f" ({read('audit.covers')}) is epsilon ="
        f" {exact(read('audit.claimed_epsilon'))} at delta = {exact(read('audit.delta'))}; a run that contradicts its"
        f" claim at {refuting} is not published. An audit can refute epsilon, never prove it. It read no row of the"
        " source."
    )


def total_in_words(read: Reading) -> str:
    """What the releases of the run add up to, in the accountant's own quantity where there is one."""
    spent = f"epsilon {exact(read('privacy.epsilon'))} at delta {exact(read('privacy.delta'))}"
    if read("privacy.mu") is not None:
        return f"The releases of this run compose to mu = {number(read('privacy.mu'))} ({spent})."
    second = ""
    if read("privacy.renyi_epsilon") is not None:
        second = f"; the second accountant's bound is epsilon {exact(read('privacy.renyi_epsilon'))}"
    return f"The releases and steps of this run compose to {spent}{second}."


def refining(read: Reading) -> tuple[str, ...]:
    """The step of the path that a critic takes; nothing without one."""
    if not released(read, budget.CRITIC):
        return ()
    return ("Refining: the generator goes on against a critic trained on the source by DP-SGD, charged.",)


def bounds_in_words(read: Reading) -> str:
    """Where bounds come from, in a run that estimates some; else nothing."""
    if not released(read, budget.BOUNDS):
        return ""
    columns = read("data.columns")
    estimated, assumed = (
        [str(column["name"]) for column in columns if column.get("bounds_are") == how]
        for how in ("estimated", "assumed")
    )
    text = f"Bounds of {listed([*estimated, *assumed])}: estimated from noised histograms, charged."
    if assumed:
        text += f" Of {listed(assumed)} nothing stood out of the noise, so fixed bounds are assumed."
    return f"{text} All other bounds, and categories: declared by the steward as public knowledge."


def path_covered(read: Reading) -> tuple[str, ...]:
    """The steps from the first read of the source to the bundle, and how each is covered."""
    chosen = (
        "Choice of pairs: made by the exponential mechanism, charged."
        if released(read, budget.SELECTION)
        else "Choice of pairs: follows from the schema and the configuration, not from the source."
    )
    refined = refining(read)
    scored_people = (
        ("Score on held-out people: right and wrong predictions are counted and noised, charged.",)
        if released(read, budget.ACCURACY)
        else ()
    )
    return (
        bounds_in_words(read) or "Bounds and categories: declared by the steward as public knowledge.",
        "Bins: cut from noised histograms, charged.",
        "Class shares: taken from noised counts, charged.",
        chosen,
        "Training: the generator is fitted to noised measurements only; fitting is post-processing.",
        *refined,
        "Sampling: rows are drawn from the generator; post-processing.",
        *(() if read("audit") is None else ("Audit: made of synthetic rows and planted records; post-processing.",)),
        *scored_people,
        "Evaluation: published scores compare synthetic rows with noised measurements; post-processing.",
        "Documents: written from the public facts of the run; no exact statistic of the source is among them.",
    )
