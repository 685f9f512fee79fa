"""How good synthetic pictures are: trained on them, tested on real ones, by a small network with a fixed recipe.

Each run encodes and measures the training pictures, draws as many synthetic ones as asked, trains the network of the
internal report on them (three epochs) and tests it on the held-out pictures. `real` trains on real pictures instead.
Noise is fresh in every run. The scores are computed on real pictures: for public data only.

    python benchmarks/images.py --train TRAIN.parquet --test TEST.parquet --schema schema.yaml --epsilon 1 10

With `--critic-share` the model goes on against a critic trained by DP-SGD, and is scored before and after. Distances,
recall and coverage are by the features of the same network, trained on real pictures. `--full` takes the settings of
the full recipe (FULL), for a GPU.

    python benchmarks/images.py --train TRAIN.parquet --test TEST.parquet --schema schema.yaml --epsilon 1 --full
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import sys
import tempfile
import time
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from synth.config import IMAGE_CRITIC, Critic, Public, Source
from synth.evaluate.internal.image_features import feature_scores
from synth.evaluate.internal.images import MOST_COMPARED, features_of, prepared, trained
from synth.image_schema import ImageSchema, load_any_schema
from synth.images.denoise import denoise
from synth.images.encode import encode, read_coefficients
from synth.images.fit import fit
from synth.images.measure import ImageMeasurements, ImageMeasurer
from synth.images.model import ImageModel, model_of
from synth.images.picture import blank, read_picture
from synth.images.pictures import PrivatePictures, read_pictures
from synth.images.pretrain import pretrain
from synth.images.public import read_public
from synth.images.refine import refine
from synth.images.sample import drawn_pictures
from synth.images.source import open_images
from synth.images.transform import transform_of
from synth.privacy.image_budget import SECOND_MOMENTS, SHARES, ImagePlan, plan_images
from synth.privacy.noise import NoiseSource
from synth.refinement import RefineSettings, constants_of
from synth.tables.sample import split_by_share

PUBLIC_STEPS = 400
"""The default of synthesizer.public.steps."""
FULL = {"steps": 2000, "sample_rate": 4096 / 60_000, "hidden_size": 256}
"""The critic of the full recipe: about 4,096 of MNIST's 60,000 training pictures in a step."""


def full_share(epsilon: float) -> float:
    """The critic's share in the full recipe: half of all μ² at small ε, four fifths at large."""
    return (0.5 if epsilon < 3 else 0.8) / SHARES[SECOND_MOMENTS]


Pictures = tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]


def pictures_of(path: Path, schema: ImageSchema, most: int) -> Pictures:
    """The first readable pictures of a Parquet file, and their classes."""
    pixels: list[npt.NDArray[np.uint16]] = []
    labels: list[int] = []
    for row in open_images(Source(path=path), schema).rows():
        if len(labels) == most:
            break
        if row.label is not None:
            picture = read_picture(row.content, schema.image)
            pixels.append(blank(schema.image) if picture is None else picture)
            labels.append(row.label)
    return np.stack(pixels), np.array(labels, dtype=np.int64)


def score(train: Pictures, test: Pictures, schema: ImageSchema, seed: int) -> dict[str, Any]:
    """Accuracy, AUC (mean of each class against the rest) and seconds of the network."""
    start, classes = time.monotonic(), len(schema.target.classes)
    low, high = schema.image.low, schema.image.high
    network = trained(prepared(train[0], low, high), train[1], classes, seed=seed)
    with torch.inference_mode():
        x = prepared(test[0], low, high)
        found = torch.cat([network(x[i : i + 500] - 0.5).softmax(dim=1) for i in range(0, len(x), 500)]).numpy()
    auc = np.mean([roc_auc_score(test[1] == c, found[:, c]) for c in np.unique(test[1])])
    right = float((found.argmax(axis=1) == test[1]).mean())
    return {
        "accuracy": round(right, 4),
        "auc": round(float(auc), 4),
        "score_seconds": round(time.monotonic() - start, 1),
    }


class Likeness:
    """Distances to real test pictures, by the features of a network that was trained on real ones."""

    def __init__(self, train: Pictures, test: Pictures, schema: ImageSchema) -> None:
        self._low, self._high = schema.image.low, schema.image.high
        x = prepared(train[0], self._low, self._high)
        self._network = trained(x, train[1], len(schema.target.classes), seed=0)
        self._real = self._features(test[0])

    def __call__(self, pictures: Pictures) -> dict[str, float]:
        """Scores of synthetic pictures, which come in random order."""
        found = feature_scores(self._real, self._features(pictures[0]))
        return {name: round(value, 4) for name, value in asdict(found).items()}

    def _features(self, pixels: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
        return features_of(self._network, prepared(pixels[:MOST_COMPARED], self._low, self._high))


def drawn(model: ImageModel, rows: int) -> Pictures:
    """New pictures of all classes by their shares, in random order."""
    rng = np.random.default_rng()
    labels = rng.permutation(np.repeat(np.arange(len(model.class_share)), split_by_share(rows, model.class_share, rng)))
    return drawn_pictures(model, labels, rng), labels


def settings_of(recipe: Critic) -> RefineSettings:
    """How networks learn, on one thread of a processor or on a GPU."""
    return RefineSettings(
        learning_rate=recipe.learning_rate,
        hidden_size=recipe.hidden_size,
        weight=recipe.weight,
        max_rows_per_person=1,
        accelerator="auto",
        threads=1,
    )


def refined(
    model: ImageModel, measured: ImageMeasurements, plan: ImagePlan, private: PrivatePictures, recipe: Critic
) -> tuple[ImageModel, dict[str, Any]]:
    """The model after the steps of its critic, and what they were."""
    assert plan.critic is not None
    start = time.monotonic()
    constants = constants_of(plan.critic, recipe, people=measured.total)
    found = refine(model, measured, private, settings_of(recipe), constants, charge=lambda: None)
    return replace(model, residual=found.residual), {
        "steps": recipe.steps,
        "sample_rate": recipe.sample_rate,
        "noise_multiplier": plan.critic.noise_multiplier,
        "hidden_size": recipe.hidden_size,
        "critic_parameters": found.critic_parameters,
        "generator_steps": found.generator_steps,
        "most_critic_steps": found.most_critic_steps,
        "drift": round(found.drift, 3),
        "refine_seconds": round(time.monotonic() - start, 1),
    }


def main() -> None:
    """Run and score; a line a run, also into a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--train", "--test", "--schema"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--epsilon", type=float, nargs="*", default=[1.0])
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--rows", type=int, default=20_000, help="pictures the network learns from")
    parser.add_argument("--real", action="store_true", help="score real pictures too")
    parser.add_argument("--people", type=int, help="so many of the training pictures alone")
    parser.add_argument("--critic-share", type=float, default=0.0, help="as synthesizer.critic_share")
    parser.add_argument("--critic", type=json.loads, default={}, help="as synthesizer.critic, in JSON")
    parser.add_argument("--public", type=Path, help="as synthesizer.public.path; scored before and after")
    parser.add_argument("--full", action="store_true", help="the critic's share and settings of the full recipe")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    schema = load_any_schema(asked.schema)
    if not isinstance(schema, ImageSchema):
        parser.error(f"{asked.schema} is not a schema of images")
    test = pictures_of(asked.test, schema, 10**9)
    lines: list[dict[str, Any]] = []

    def note(line: dict[str, Any]) -> None:
        line["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        lines.append({"dataset": schema.dataset, **line})
        print(lines[-1], file=sys.stderr, flush=True)
        if asked.out:
            with asked.out.open("w", newline="") as stream:
                names = dict.fromkeys(name for each in lines for name in each)
                writer = csv.DictWriter(stream, fieldnames=list(names), lineterminator="\n")
                writer.writeheader()
                writer.writerows(lines)

    transform = transform_of(schema.image, len(schema.target.classes))
    public = None
    if asked.public:
        declared = Public(path=asked.public, declared="public pictures of a benchmark")
        public = read_public(declared, schema.image, source=Source(path=asked.train))
    settings = (FULL | asked.critic) if asked.full else asked.critic
    recipe = Critic.model_validate(IMAGE_CRITIC | settings)
    with tempfile.TemporaryDirectory() as folder:
        codes, pixels, start = Path(folder) / "codes", Path(folder) / "pixels", time.monotonic()
        encode(
            islice(open_images(Source(path=asked.train), schema).rows(), asked.people),
            schema,
            transform,
            codes,
            sample=Path(folder) / "s",
            pixels=pixels,
        )
        private = read_pictures(pixels, schema, destination=Path(folder) / "seen")
        encoded = time.monotonic() - start
        alike = Likeness(pictures_of(asked.train, schema, asked.rows), test, schema)
        for epsilon in asked.epsilon:
            share = full_share(epsilon) if asked.full else asked.critic_share
            plan = plan_images(
                epsilon=epsilon,
                delta=asked.delta,
                critic_share=share,
                critic_steps=recipe.steps,
                critic_sample_rate=recipe.sample_rate,
            )
            for run in range(asked.runs):
                start = time.monotonic()
                measured = ImageMeasurer(
                    read=lambda: read_coefficients(codes),
                    transform=transform,
                    classes=len(schema.target.classes),
                    plan=plan,
                    noise=NoiseSource(),
                    charge=lambda _: None,
                ).measure()
                fitted_to, _ = fit(denoise(measured, transform.frequency), transform, measured)
                model = model_of(schema, fitted_to, rows=asked.rows)
                about = {"epsilon": epsilon, "critic_share": round(share, 4), "coefficients": measured.features}
                seconds = {
                    "encode_seconds": round(encoded, 1),
                    "fit_seconds": round(time.monotonic() - start, 1),
                }
                steps = ["synthetic", *(["public"] if public else []), *(["refined"] if plan.critic else [])]
                for step in steps:
                    start = time.monotonic()
                    if step == "public" and public is not None:
                        residual = pretrain(model, public.pixels, steps=PUBLIC_STEPS, settings=settings_of(recipe))
                        model = replace(model, residual=residual)
                        about |= {"public_pictures": len(public.pixels)}
                        seconds["pretrain_seconds"] = round(time.monotonic() - start, 1)
                    elif step == "refined":
                        model, found = refined(model, measured, plan, private, recipe)
                        about |= found
                    start = time.monotonic()
                    made = drawn(model, asked.rows)
                    seconds["draw_seconds"] = round(time.monotonic() - start, 1)
                    scores = score(made, test, schema, seed=run) | alike(made)
                    note({"trained_on": step} | about | scores | seconds)
    if asked.real:
        note({"trained_on": "real"} | score(pictures_of(asked.train, schema, asked.rows), test, schema, seed=0))


if __name__ == "__main__":
    main()
