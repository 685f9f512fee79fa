"""What a run on images says where a run on a table says something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasheets.reading import Reading, number, plural
from datasheets.statements import (
    and_steps,
    audit_in_words,
    critic_in_words,
    events_in_words,
    promise_in_words,
    refining,
    row_count_in_words,
)
from synth.privacy import budget, image_budget

INTENDED_USES = (
    "Writing, testing and teaching software that will later run on the source: loaders, models, whole pipelines.",
    "Training and comparing classifiers as a first approximation, to be confirmed on real data.",
    "Planning: which sizes, classes and class shares to expect, before access to the source is asked for.",
)


def procedure(read: Reading) -> str:
    """The whole procedure: measurements, model and draw, with every setting that the facts hold."""
    return "\n\n".join(
        (
            f"Procedure, as carried out by {read('run.software')}; constants not named here are that version's.",
            _measurements(read),
            _model(read),
            *([_public(read)] if read("model.public") is not None else []),
            *([_critic(read)] if read("model.critic") is not None else []),
            _draw(read),
            f"Audit. {audit_in_words(read)}",
            f"What protects the source happens in the noised releases{and_steps(read)}. Everything after them sees"
            " noised numbers only,"
            f" and is post-processing. The noise itself: {read('privacy.noise_protection')} {promise_in_words(read)}",
        )
    )


def _measurements(read: Reading) -> str:
    part = read("model.feature_part")
    meaning = {
        image_budget.LENGTHS: "how many pictures have coefficients of which length, by which the means are clipped.",
        image_budget.MEANS: (
            "for every class, how many pictures it has and the sum of their coefficients, clipped in length; half of a"
            " vector's squared length is for the count."
        ),
        image_budget.CENTRED_LENGTHS: (
            "the same as the first once the noised mean of its class is taken off each picture and frequencies are"
            " weighted by their square root; by this the next release is clipped."
        ),
        image_budget.SECOND_MOMENTS: (
            "for every class, the sum of u times its transpose, where u holds a picture's centred, weighted"
            f" coefficients, clipped at length {number(read('model.clip'))} and scaled to squared length"
            f" {number(part)}, and a constant of square {number(1 - part)}. About half of the pictures are longer and"
            " count as shortened."
        ),
        budget.CRITIC: "the gradients of a critic on the pictures of the source, as described below.",
    }
    steps = [f"- {event.name}: {meaning.get(event.name, 'a vector of sums.')}" for event in read("privacy.events")]
    return (
        "Measurements. Each picture is described by low-frequency coefficients of its orthonormal cosine transform"
        " (DCT-II), of colour as grey and two colour differences. These releases, in this order, are all that was"
        " learned from the source. All vectors are rounded to whole numbers on a public grid and their lengths are"
        " bounded after rounding, so that sums and sensitivities are exact. A person has at most"
        f" {plural(read('privacy.max_rows_per_person'), 'row')}.\n\n"
        + "\n".join(steps)
        + "\n\nMechanism, sensitivity and noise of each release:\n\n"
        + events_in_words(read)
        + "\n\nA symmetric matrix is released as its diagonal and the square root of 2 times its upper triangle."
        f" {number(read('model.coefficients'))} of {plural(read('model.coefficients_offered'), 'coefficient')} offered"
        " by the schema were measured, so many as the noised number of pictures and the budget carry; the highest"
        f" frequency is {number(read('model.largest_frequency'))} half periods per shorter side."
    )


def _model(read: Reading) -> str:
    return (
        f"Model. The generator ({read('model.kind')}) has {plural(read('model.parameters'), 'number')}. Class means"
        " are the noised ones, drawn towards their common mean by the noise's share. The covariance of all classes"
        " together is drawn towards a power law of the frequency, and each class's towards the common one, by"
        " eigenvalue shrinkage at the known noise level (rotation-invariant estimator), and projected to positive"
        " definite matrices. Both are then corrected, in"
        f" {plural(read('model.rounds'), 'round')}, by what the model's pictures lack of them when they are clipped to"
        " the range of values and their vectors are clipped as those of the source were."
        " Class sizes are the precision-weighted mean of the two noised counts, none below zero."
        f" {row_count_in_words(read)} Weights and configuration are in model/."
    )


def _public(read: Reading) -> str:
    return (
        f"Public pictures. {plural(read('model.public.pictures'), 'picture')} that the steward declares public were"
        f" used besides the source, at no cost and without protection: \u201c{read('model.public.declared')}\u201d"
        f" (SHA-256 of the sorted digests of their files: {read('model.public.sha256')}). They were brought into the"
        " declared form as described for the source, and their labels, if any, were not read. From them, by"
        f" {plural(read('model.public.steps'), 'step')} of least squares, a convolutional network with"
        f" {plural(read('model.public.residual_parameters'), 'parameter')} learned to add what a picture's measured"
        " coefficients, under a little noise of its own, leave out; it adds this to the pictures of the Gaussians. So"
        " fine detail in the synthetic pictures is that of public pictures, as far as it goes with the source's coarse"
        " shapes, and may be wrong for it."
    )


def _critic(read: Reading) -> str:
    return (
        f"Refinement. A critic with {plural(read('model.critic.parameters'), 'parameter')} (three convolutions with"
        f" stride 2 and leaky ReLU, {number(read('model.critic.hidden_size'))} channels in the last, no normalisation;"
        " one score, with class projection) sees whole pictures with their class and learns to tell those of the"
        " source from generated ones by the hinge loss."
        f" {critic_in_words(read, 'clipping lengths, class sizes and means')}"
        " The generator is the Gaussian of each class and what a convolutional network with"
        f" {plural(read('model.critic.residual_parameters'), 'parameter')} adds to its pictures, {_at_first(read)}."
        " That network sees a picture's coefficients under a little noise of its own. After the first tenth of the"
        f" steps it took {plural(read('model.critic.generator_steps'), 'step')}: one after each step of the critic,"
        " or after 2, 5, 10, 20 or 50, the next of these whenever the critic told no more than 65 % of the generated"
        f" pictures ({number(read('model.critic.most_critic_steps'))} in the end). It raises the critic's mean score,"
        f" with weight {number(read('model.critic.weight'))}, while a loss holds the second moments of each class"
        " where the Gaussians have them, in units of the noise of their release. Both use Adam at learning rate"
        f" {number(read('model.critic.learning_rate'))}, the network with cosine decay. Its last weights, averaged over"
        " its steps, are in the model; none were chosen by a score. In the end the squared distance of the second"
        f" moments from the Gaussians' is {number(read('model.critic.drift'))} times what the noise of their release"
        " adds."
    )


def _at_first(read: Reading) -> str:
    return "nothing at first" if read("model.public") is None else "at first what public pictures have taught it"


def _draw(read: Reading) -> str:
    refined = read("model.critic") is not None or read("model.public") is not None
    added = " What the network adds comes on top." if refined else ""
    return (
        f"Draw. {plural(read('data.rows'), 'row')} (number from: {read('data.rows_chosen_by')}) are divided over the"
        " classes by their sizes, in random order. A picture's coefficients are a draw from the Gaussian of its class;"
        f" all higher frequencies are zero.{added} They are transformed back, clipped to the declared range of values,"
        " rounded, and written as PNG without loss, marked as made by a trained model."
        f"{_credentials(read)}"
    )


def _credentials(read: Reading) -> str:
    """Who signs the sheets."""
    if (whose := read("data.sheets_signed_by")) is None:
        return ""
    signer = (
        "a certificate that the steward has given"
        if whose == "steward"
        else "a key that was made for this run and not kept, under a certificate authority of its own, so that it tells"
        " nothing about who signed"
    )
    return (
        " The sheets of pictures carry content credentials (C2PA) that say the same (c2pa.created,"
        f" trainedAlgorithmicMedia), signed with {signer}. A changed pixel makes them invalid."
    )


def measured(read: Reading) -> str:
    """Which dependence was measured, and how well."""
    moments = read("quality.moments")
    noise = [score.noise for score in moments]
    beyond = (
        "were seen by a critic alone, in noised steps: what the pictures show of them was learned, and no noise of it"
        " can be stated."
        if read("model.critic") is not None
        else "were not measured: what the pictures show of them comes from public pictures."
        if read("model.public") is not None
        else "were not measured, and pictures are blurred where the source's are sharp."
    )
    return (
        f"Means and covariances of {plural(read('model.coefficients'), 'low-frequency coefficient')} were measured"
        " within every class: coarse shapes and how they vary. Fine detail, sharp edges and whatever needs more than"
        f" second moments (such as two distinct looks of one class) {beyond} Noise alone moves a class's moments by"
        f" {min(noise):.4f} to {max(noise):.4f};"
        " quality.json lists each."
    )


def errors(read: Reading) -> str:
    """Errors and noise of the pictures."""
    lines = [
        f"- class {score.class_value}: {score.distance:.4f}, where noise alone would show {score.noise:.4f}"
        for score in read("quality.moments")
    ]
    return (
        "Noise was added on purpose, to every measurement that the pictures were made from:\n\n"
        f"{events_in_words(read)}\n\n"
        "Distance of the synthetic pictures' second moments to the noised ones (Frobenius norm of the difference of"
        " two means of matrices of norm at most 1):\n\n" + "\n".join(lines) + "\n\nThe shares of the classes lie at a"
        f" total variation distance of {read('quality.mean_one_way_distance'):.4f} from the noised ones, where noise"
        f" alone would show {read('quality.mean_one_way_noise'):.4f}. {number(read('quality.valid_rows'))} of"
        f" {plural(read('quality.rows'), 'row')} hold a readable picture of the declared form and a declared label."
    )


def preprocessing(read: Reading) -> str:
    """How each source row was mapped into the declared form."""
    image = next(column for column in read("data.columns") if column["kind"] == "image")
    low, high = image["value_range"]
    resize = {
        "pad": "fitted inside the frame, the rest filled with the lowest value",
        "crop": "made to cover the frame, and what stands out cut off",
        "stretch": "stretched to the frame",
    }[str(image["resize"])]
    return (
        "Before measuring, every picture was brought into the declared form; nothing else of a file was used (no"
        f" name, no metadata but what says how its pixels are to be shown).{_other_files(image)} A picture of another"
        " size was"
        f" {resize}; other bits and channels were converted; values outside [{number(low)}, {number(high)}] moved to"
        " the nearest end. A picture that could not be read became a blank one, and a label that is not declared a"
        " random class. How often this happened is not published."
    )


def _other_files(image: Mapping[str, Any]) -> str:
    """How DICOM, NIfTI and TIFF files were read, where the schema declares it."""
    said = ""
    if dicom := image.get("dicom"):
        window = {
            "file": "the values that each file's own header names, or else its own smallest and largest,",
            "stored": "the lowest and highest value that a file's stored bits can hold",
        }.get(str(dicom["window"]))
        if window is None:
            centre, width = dicom["window"]
            window = f"the window with centre {number(centre)} and width {number(width)}, in units of the modality,"
        said += (
            f" Of a DICOM file, {_selected(dicom['frames'], 'frame')} was used, and {window} became black and white."
        )
    if nifti := image.get("nifti"):
        low, high = nifti["value_range"]
        across = ("left to right", "back to front", "foot to head")[nifti["axis"]]
        said += (
            f" Of a NIfTI volume, {_selected(nifti['slices'], 'slice')} from {across} was used, and the values"
            f" {number(low)} and {number(high)} became black and white."
        )
    if tiff := image.get("tiff"):
        said += f" Of a TIFF file, {_selected(tiff['pages'], 'page')} was used."
    return said


def _selected(rule: str | Mapping[str, int], what: str) -> str:
    if not isinstance(rule, Mapping):
        return {"first": f"the first {what}", "middle": f"the middle {what}", "all": f"each {what}"}[rule]
    if "index" in rule:
        return f"{what} {rule['index']} (counted from 0)"
    return f"one {what} of every {rule['every']}, from the first on,"


def missing() -> str:
    """Missing cells."""
    return (
        "No. Every row holds a picture and a label. Where a source row had no readable picture, a blank one was counted"
        " in its place, and where it had no declared label, a random class; such rows cannot be told apart here."
    )


def acquisition(read: Reading) -> str:
    """How the instances came about."""
    also = ", with detail learned from public pictures" if read("model.public") is not None else ""
    also += " and refined in the noised steps of a critic" if read("model.critic") is not None else ""
    return (
        f"Derived. Each picture was drawn from a generative model made of noised moments of the source{also}. Nothing"
        " was observed or reported for it."
        f" {number(read('quality.valid_rows'))} of {plural(read('quality.rows'), 'row')}"
        " were verified to hold a readable picture of the declared form and a declared label."
    )


POST_PROCESSING = (
    "Denoising of means and covariances, drawing of pictures and of those between them, public scores, contact sheets,"
    " documents."
)


PUBLIC = (
    "Public pictures: declared public by the steward, never of the source; what the model learned of them is not"
    " charged."
)


def path_covered(read: Reading) -> tuple[str, ...]:
    """The steps from the first read of the source to the bundle, and how each is covered."""
    return (
        "Size, channels, range of values and the list of classes: declared by the steward as public knowledge.",
        "Clipping lengths: taken from noised histograms, charged.",
        "Class shares: taken from noised counts, charged.",
        "Number of coefficients: follows from the budget and a noised count, charged.",
        "Model: noised means and covariances, denoised; post-processing.",
        *(() if read("model.public") is None else (PUBLIC,)),
        *refining(read),
        "Sampling: pictures are drawn from the model; post-processing.",
        "Audit: made of synthetic pictures and planted ones; post-processing.",
        "Evaluation: published scores compare synthetic pictures with noised measurements; post-processing.",
        "Documents: written from the public facts of the run; no exact statistic of the source is among them.",
    )
