"""What a run on images does in its stages. Each takes the run's folder and leaves files; `synth.stages` guards them.

Private pictures are seen by `encode`, `measure`, `refine` and the report alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors.numpy import load

from synth.config import Run
from synth.durations import so_far
from synth.evaluate.image_public import image_scores, moments_of
from synth.evaluate.internal.images import MOST_PICTURES, Pictures, halved, image_report, write_image_report
from synth.facts import DataFacts, ImageCriticFacts, ImageModelFacts, PublicPicturesFacts, QualityFacts
from synth.files import write_whole
from synth.image_schema import IMAGE_COLUMN, ImageSchema
from synth.images.contact_sheet import picture_sheets
from synth.images.credentials import credentials_for
from synth.images.denoise import denoise
from synth.images.encode import Outside, encode_source, read_coefficients
from synth.images.fit import fit
from synth.images.measure import FEATURE_PART, ImageMeasurements, ImageMeasurer, load_measurements, save_measurements
from synth.images.model import ImageModel, model_of
from synth.images.picture import blank, read_picture
from synth.images.pictures import pictures_beside, read_pictures
from synth.images.pretrain import pretrain
from synth.images.public import read_public
from synth.images.refine import FAKES, RefinedPictures
from synth.images.refine import refine as refine_pictures
from synth.images.sample import arrow_schema, drawn_pictures, sample_images
from synth.images.source import class_of
from synth.images.transform import transform_of
from synth.ingest import at_rest
from synth.parquet import read_parts, write_parts
from synth.prepare import plan_images_of
from synth.privacy.audit.images import audit_of_images
from synth.privacy.audit.one_run import Audit
from synth.privacy.dp_sgd import DpSgdConfig
from synth.privacy.events import Event, PoissonGaussianEvent
from synth.privacy.noise import NoiseSource
from synth.ranks import MEETING, REFINED, ranks_of, together
from synth.refinement import RefineSettings, charging, constants_of, settings_of
from synth.run_folder import CRITIC, RunFolder
from synth.tables.workers import HERE, Workers
from synth.working_file import read_content, working_key

logger = logging.getLogger(__name__)

OUTSIDE = "outside.json"
SAMPLE = "pictures.arrow"
PICTURES_AT_ONCE = 1_000


def schema_of(run: Run) -> ImageSchema:
    """The schema of a run on images."""
    assert run.images is not None
    return run.images


def encode(folder: RunFolder, _charge: Callable[[Event], None]) -> None:
    """One pass over the private pictures into the run's working file."""
    run = folder.run()
    schema = schema_of(run)
    transform = transform_of(schema.image, len(schema.target.classes))
    with at_rest(run.files.path):
        outside = encode_source(
            run.files,
            schema,
            transform,
            folder.codes,
            sample=folder.private / SAMPLE,
            pixels=folder.pixels if run.has_critic else None,
        )
    write_whole(folder.private / OUTSIDE, json.dumps(asdict(outside)))
    logger.info("encode: the pictures are encoded")


def measure(folder: RunFolder, charge: Callable[[Event], None], _: Workers = HERE) -> None:
    """All noised releases, each charged before its first draw, then saved whole. Of images, one process does it all."""
    run = folder.run()
    schema, plan = schema_of(run), plan_images_of(run)
    events = {event.name: event for event in plan.releases}
    classes = len(schema.target.classes)
    measured = ImageMeasurer(
        read=lambda: read_coefficients(folder.codes),
        transform=transform_of(schema.image, classes),
        classes=classes,
        plan=plan,
        noise=NoiseSource(),
        charge=lambda name: charge(events[name]),
    ).measure()
    save_measurements(measured, folder.private)
    logger.info("measure: %d noised releases made and saved", len(plan.releases))


def noised_rows(folder: RunFolder) -> float:
    """The noised number of pictures, from the saved measurements."""
    return load_measurements(folder.private).total


def train(folder: RunFolder) -> None:
    """Denoise the measurements, fit the model to them and save it, with what public pictures teach it where there are
    any. No private picture is opened."""
    run = folder.run()
    schema, measured = schema_of(run), load_measurements(folder.private)
    transform = transform_of(schema.image, len(schema.target.classes))
    rows = max(1, round(measured.total)) if schema.row_count == "private" else int(schema.row_count)
    fitted, rounds = fit(denoise(measured, transform.frequency), transform, measured)
    model, public = _pretrained(run, model_of(schema, fitted, rows=rows))
    model.save(folder.model)
    facts = ImageModelFacts(
        kind="class-conditional Gaussian of low-frequency cosine coefficients",
        parameters=model.parameters,
        coefficients=measured.features,
        coefficients_offered=transform.size,
        largest_frequency=float(transform.frequency[measured.features - 1]),
        feature_part=FEATURE_PART,
        clip=measured.clip,
        rounds=rounds,
        public=public,
    )
    folder.note("model", facts.model_dump(mode="json"))
    logger.info("train: %d coefficients a class", measured.features)


def _pretrained(run: Run, model: ImageModel) -> tuple[ImageModel, PublicPicturesFacts | None]:
    """The model with a residual that public pictures have taught, where the steward declares any."""
    public = run.config.synthesizer.public
    if public is None:
        return model, None
    found, settings = read_public(public, model.schema.image, source=run.files), settings_of(run, run.critic)
    residual = pretrain(model, found.pixels, steps=public.steps, settings=settings)
    return replace(model, residual=residual), PublicPicturesFacts(
        pictures=len(found.pixels),
        sha256=found.sha256,
        declared=public.declared,
        steps=public.steps,
        residual_parameters=sum(array.size for array in residual.arrays().values()),
    )


def refine(folder: RunFolder, charge: Callable[[Event], None]) -> None:
    """Refine the fitted model against a critic trained by DP-SGD, for a run whose critic has a share.

    The critic's event is charged before the first person is drawn. The refined model takes the fitted one's place.
    """
    run = folder.run()
    event, recipe = plan_images_of(run).critic, run.critic
    if event is None:
        return
    schema, measured, model = schema_of(run), load_measurements(folder.private), ImageModel.load(folder.model)
    settings, config = _refine_settings(run, event, measured)
    draw = charging(folder, charge, event)
    if (count := ranks_of(run).count) == 1:
        private = read_pictures(folder.pixels, schema, destination=folder.seen)
        refined = refine_pictures(model, measured, private, settings, config, charge=draw)
    else:
        if working_key() is None:  # else each of them has the pictures in memory
            read_pictures(folder.pixels, schema, destination=folder.seen)
        found = together(folder.path, count, charge=draw)
        residual = ImageModel.load(folder.private / REFINED).residual
        assert residual is not None
        refined = RefinedPictures(residual, **found)
    model = replace(model, residual=refined.residual)
    model.save(folder.model)
    critic = ImageCriticFacts(
        share=run.config.synthesizer.share_of_critic,
        **config.model_dump(),
        fakes=FAKES,
        hidden_size=recipe.hidden_size,
        parameters=refined.critic_parameters,
        learning_rate=recipe.learning_rate,
        weight=recipe.weight,
        generator_steps=refined.generator_steps,
        most_critic_steps=refined.most_critic_steps,
        residual_parameters=sum(array.size for array in refined.residual.arrays().values()),
        drift=refined.drift,
    )
    facts = ImageModelFacts.model_validate(folder.noted("model"))
    facts = facts.model_copy(update={"parameters": model.parameters, "critic": critic})
    folder.note("model", facts.model_dump(mode="json"))
    folder.note(CRITIC, True)
    logger.info("refine: the model is refined by %d steps of its critic", event.steps)


def refine_beside(folder: RunFolder, rank: int, *, wait: Callable[[], None]) -> Mapping[str, Any]:
    """What one of several processes does to refine a run; what it has to tell. Its first one saves the refined model.

    It waits before it draws: the run charges.
    """
    run = folder.run()
    event = plan_images_of(run).critic
    assert event is not None
    schema, measured, model = schema_of(run), load_measurements(folder.private), ImageModel.load(folder.model)
    settings, config = _refine_settings(run, event, measured)
    if working_key() is None:
        private = pictures_beside(folder.pixels, schema, folder.seen)
    else:
        private = read_pictures(folder.pixels, schema, destination=folder.seen)
    ranks = ranks_of(run, rank=rank, meeting=folder.private / MEETING)
    refined = refine_pictures(model, measured, private, settings, config, charge=wait, ranks=ranks)
    if rank == 0:
        replace(model, residual=refined.residual).save(folder.private / REFINED)
    return {f.name: getattr(refined, f.name) for f in fields(refined) if f.name != "residual"}


def _refine_settings(
    run: Run, event: PoissonGaussianEvent, measured: ImageMeasurements
) -> tuple[RefineSettings, DpSgdConfig]:
    people = measured.total / run.declared.max_rows_per_person
    return settings_of(run, run.critic), constants_of(event, run.critic, people=people)


def sample(folder: RunFolder, rows: int | None, metadata: Mapping[str, str], _: Workers = HERE) -> DataFacts:
    """Draw the synthetic pictures and write them as Parquet, with contact sheets; as many as the model says without
    `rows`."""
    run = folder.run()
    schema, model = schema_of(run), ImageModel.load(folder.model)
    rows = model.rows if rows is None else rows
    parts = write_parts(sample_images(model, rows), arrow_schema(schema), folder.data, metadata)
    credentials = credentials_for(run.config.output.c2pa, run_id=folder.run_id, created=folder.created())
    sheets = tuple(picture_sheets(model, folder.draft, np.random.default_rng(), credentials))
    return DataFacts(
        rows=rows,
        rows_chosen_by=run.rows_chosen_by,
        columns=schema.described_columns,
        target=schema.target.name,
        classes=len(schema.target.classes),
        files=tuple(f"data/{name}" for name in parts),
        sheets=sheets,
        sheets_signed_by=None if credentials is None else credentials.whose,
    )


def audit(folder: RunFolder, work: Path) -> Audit:
    """Audit the mechanism on the run's own synthetic pictures, in an empty folder. No private picture is opened."""
    run = folder.run()
    schema = schema_of(run)
    transform = transform_of(schema.image, len(schema.target.classes))
    delta, plan = run.config.privacy.delta, plan_images_of(run)
    return audit_of_images(_synthetic_batches(folder), schema, transform, plan, delta=delta, folder=work)


def evaluate(folder: RunFolder) -> tuple[QualityFacts, Callable[[], None]]:
    """Public scores of the synthetic pictures, and what writes the internal report when it is called."""
    schema, measured = schema_of(folder.run()), load_measurements(folder.private)
    transform = transform_of(schema.image, len(schema.target.classes))
    sums, sizes, valid, rows = moments_of(_synthetic_batches(folder), schema, transform, measured)
    quality = image_scores(measured, schema, sums, sizes, valid_rows=valid, rows=rows)
    return quality, lambda: _report_to_the_steward(folder, schema)


def _report_to_the_steward(folder: RunFolder, schema: ImageSchema) -> None:
    kept = load(read_content(folder.private / SAMPLE))
    train, test = halved((kept["pixels"], kept["labels"]))
    synthetic = _first_pictures(folder, schema, min(MOST_PICTURES, len(kept["labels"])))
    outside = Outside(**json.loads((folder.private / OUTSIDE).read_text()))
    moments, model = None, ImageModel.load(folder.model)
    if model.residual is not None:
        rng, labels = np.random.default_rng(), synthetic[1]
        moments = drawn_pictures(replace(model, residual=None), labels, rng), labels
    report = image_report(train, test, synthetic, schema, learned=True, outside=outside, moments=moments)
    durations = so_far(folder.internal)
    write_image_report(report, test, synthetic, schema, folder.internal, name="report", durations=durations)


def _first_pictures(folder: RunFolder, schema: ImageSchema, most: int) -> Pictures:
    """The first synthetic pictures; their order is random."""
    pixels: list[npt.NDArray[np.uint16]] = []
    labels: list[int] = []
    for batch in _synthetic_batches(folder):
        for row in batch.slice(0, most - len(pixels)).to_pylist():
            picture = read_picture(row[IMAGE_COLUMN]["bytes"], schema.image)
            pixels.append(blank(schema.image) if picture is None else picture)
            labels.append(class_of(row[schema.target.name], schema.target) or 0)
        if len(pixels) >= most:
            break
    return np.stack(pixels), np.array(labels, dtype=np.int64)


def _synthetic_batches(folder: RunFolder) -> Iterator[pa.RecordBatch]:
    return read_parts(folder.data, batch_rows=PICTURES_AT_ONCE)
