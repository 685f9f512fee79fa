"""The released model: a Gaussian of coefficients for each class, in safetensors and JSON; all that sampling needs.

A refined model has a residual beside it: what it adds to each picture. All of it follows from noised measurements, the
noised steps of a critic and the public schema, so sampling costs no budget.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from synth.image_schema import ImageSchema, parse_image_schema
from synth.images.denoise import ClassGaussians
from synth.images.transform import Transform, transform_of
from synth.model_files import CONFIG_FILE, load_model, save_model
from synth.tables.bins import project_to_simplex

if TYPE_CHECKING:
    from synth.images.residual import Residual

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

FORMAT = "dp-synth-image-generator/1"
DITHER = 2.0**-4
"""Standard deviation of what hides each coefficient from a residual. It is in no picture; but what a residual sees of a
picture then leaves its pixels unsure, so that the chance of equal ones stays known (`synth.images.equal_pixels`)."""


@dataclass(frozen=True)
class ImageModel:
    """A picture of class c is the inverse transform of `means[c] + factors[c] @ z`, z standard normal, and what the
    residual adds to it.

    Attributes:
        schema: the public schema.
        class_share: share of each class [classes].
        means: mean coefficients [classes, d], in units of the value range.
        factors: square roots of the covariances [classes, d, d].
        rows: how many rows a full release has (the noised or declared count).
        residual: of a refined model; None without.
    """

    schema: ImageSchema
    class_share: FloatArray
    means: Float32Array
    factors: Float32Array
    rows: int
    residual: Residual | None = None

    @cached_property
    def transform(self) -> Transform:
        """The public feature map."""
        return transform_of(self.schema.image, len(self.schema.target.classes))

    @property
    def parameters(self) -> int:
        """Numbers that make the model."""
        added = 0 if self.residual is None else sum(array.size for array in self.residual.arrays().values())
        return int(self.class_share.size + self.means.size + self.factors.size + added)

    def coefficients(self, label: int, rows: int, rng: np.random.Generator) -> FloatArray:
        """Coefficients [rows, d] of new pictures of a class."""
        z = rng.standard_normal((rows, self.means.shape[1]))
        return np.asarray(self.means[label] + z @ self.factors[label].T.astype(np.float64))

    def unforeseen(self, label: int) -> FloatArray:
        """Covariance [d, d] of z given all that the residual sees of a picture: the identity without one."""
        identity = np.eye(self.means.shape[1])
        if self.residual is None:
            return identity
        factor = self.factors[label].astype(np.float64)
        return np.asarray(np.linalg.inv(identity + factor.T @ factor / DITHER**2))

    def save(self, folder: Path) -> None:
        """Write the model's two files; the same model gives the same bytes."""
        arrays = {name: getattr(self, name) for name in ("class_share", "factors", "means")}
        config = {
            "format": FORMAT,
            "rows": self.rows,
            "coefficients": int(self.means.shape[1]),
            "schema": self.schema.model_dump(mode="json", exclude_defaults=True),
        }
        if self.residual is not None:
            config["residual"] = {"width": self.residual.width}
            arrays |= self.residual.arrays()
        save_model(folder, config, arrays)

    @staticmethod
    def load(folder: Path) -> ImageModel:
        """Read a model written by `save`. Raises VerificationFailed when the files are not such a model."""
        return load_model(folder, _assemble, holds="an image model", form=FORMAT)


def _assemble(config: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> ImageModel:
    schema = parse_image_schema(config["schema"], file=CONFIG_FILE)
    residual = None
    if "residual" in config:
        from synth.images.residual import PREFIX, assemble  # torch; most models have none

        added = {name: arrays.pop(name) for name in list(arrays) if name.startswith(PREFIX)}
        channels, classes = schema.image.channels, len(schema.target.classes)
        residual = assemble(int(config["residual"]["width"]), added, channels=channels, classes=classes)
    model = ImageModel(schema=schema, rows=int(config["rows"]), residual=residual, **arrays)
    c, d = len(model.schema.target.classes), int(config["coefficients"])
    shapes = (model.class_share.shape, model.means.shape, model.factors.shape)
    if shapes != ((c,), (c, d), (c, d, d)) or d > model.transform.size:
        raise ValueError("not this format")
    return model


def is_image_model(folder: Path) -> bool:
    """Whether a bundle's model folder says that it holds an image model."""
    try:
        return bool(json.loads((folder / CONFIG_FILE).read_bytes())["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def model_of(schema: ImageSchema, gaussians: ClassGaussians, *, rows: int) -> ImageModel:
    """The model of denoised class Gaussians."""
    values, vectors = np.linalg.eigh(gaussians.covariances)
    factors = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    sizes = project_to_simplex(gaussians.sizes, max(1.0, float(gaussians.sizes.sum())))
    return ImageModel(
        schema=schema,
        class_share=sizes / sizes.sum(),
        means=gaussians.means.astype(np.float32),
        factors=factors.astype(np.float32),
        rows=rows,
    )
