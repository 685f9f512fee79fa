"""How good synthetic pictures are: trained on them, tested on real ones, by a small network with a fixed recipe.

Each run encodes and measures the training pictures, draws as many synthetic ones as asked, trains the network of the
internal report on them (three epochs) and tests it on the held-out pictures. `real` trains on real pictures instead.
Noise is fresh in every run. The scores are computed on real pictures: for public data only.

    python benchmarks/images.py --train TRAIN.parquet --test TEST.parquet --schema schema.yaml --epsilon 1 10
"""

from __future__ import annotations

import argparse
import csv
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from synth.config import Source
from synth.evaluate.internal.images import prepared, trained
from synth.image_schema import ImageSchema, load_any_schema
from synth.images.denoise import denoise
from synth.images.encode import encode, read_coefficients
from synth.images.fit import fit
from synth.images.measure import ImageMeasurer
from synth.images.model import model_of
from synth.images.picture import blank, read_picture
from synth.images.sample import draw_pixels
from synth.images.source import open_images
from synth.images.transform import transform_of
from synth.privacy.image_budget import plan_images
from synth.privacy.noise import NoiseSource
from synth.tables.sample import split_by_share

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
    with tempfile.TemporaryDirectory() as folder:
        codes, start = Path(folder) / "codes", time.monotonic()
        encode(
            open_images(Source(path=asked.train), schema).rows(), schema, transform, codes, sample=Path(folder) / "s"
        )
        encoded = time.monotonic() - start
        for epsilon in asked.epsilon:
            for run in range(asked.runs):
                start = time.monotonic()
                measured = ImageMeasurer(
                    read=lambda: read_coefficients(codes),
                    transform=transform,
                    classes=len(schema.target.classes),
                    plan=plan_images(epsilon=epsilon, delta=asked.delta),
                    noise=NoiseSource(),
                    charge=lambda _: None,
                ).measure()
                fitted_to, _ = fit(denoise(measured, transform.frequency), transform)
                model = model_of(schema, fitted_to, rows=asked.rows)
                fitted = time.monotonic() - start
                rng = np.random.default_rng()
                labels = np.repeat(
                    np.arange(len(model.class_share)), split_by_share(asked.rows, model.class_share, rng)
                )
                made = draw_pixels(model, labels, rng)
                seconds = {
                    "encode_seconds": round(encoded, 1),
                    "fit_seconds": round(fitted, 1),
                    "draw_seconds": round(time.monotonic() - start - fitted, 1),
                }
                found = score((made, labels), test, schema, seed=run)
                note(
                    {"trained_on": "synthetic", "epsilon": epsilon, "coefficients": measured.features} | found | seconds
                )
    if asked.real:
        note({"trained_on": "real"} | score(pictures_of(asked.train, schema, asked.rows), test, schema, seed=0))


if __name__ == "__main__":
    main()
