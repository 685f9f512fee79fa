"""Pictures between pictures: what the model holds between its own draws. From the released model alone.

Within a class, a grid spans four draws: the latent point at angles a and b is cos a (cos b z₁ + sin b z₂) +
sin a (cos b z₃ + sin b z₄). The squares of its weights add up to 1, so every picture of the grid is by itself a draw
from the class like any other. Between two classes, each line takes a draw from the first along the straight path to
where optimal transport between the two Gaussians brings it: x ↦ m₂ + A(x − m₁) (Takatsu 2011, Osaka J. Math. 48(4)).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from synth.images.model import ImageModel

FloatArray = npt.NDArray[np.float64]


def within_class(model: ImageModel, label: int, side: int, rng: np.random.Generator) -> FloatArray:
    """Coefficients [side², d] of a class, line by line; the corners are four draws. `side` is 2 or more."""
    corners = rng.standard_normal((2, 2, model.means.shape[1]))
    angle = np.linspace(0.0, math.pi / 2, side)
    weight = np.stack([np.cos(angle), np.sin(angle)])
    z = np.einsum("ai,bj,abd->ijd", weight, weight, corners).reshape(side * side, -1)
    return np.asarray(model.means[label] + z @ model.factors[label].T.astype(np.float64))


def between_classes(model: ImageModel, first: int, second: int, side: int, rng: np.random.Generator) -> FloatArray:
    """Coefficients [side², d], line by line: `side` draws from the first class, each on its way to the second."""
    start = rng.standard_normal((side, model.means.shape[1])) @ model.factors[first].T.astype(np.float64)
    end = start @ transport(*(model.factors[c].astype(np.float64) for c in (first, second))).T
    way = np.linspace(0.0, 1.0, side)[None, :, None]
    lines = (1 - way) * (model.means[first] + start)[:, None] + way * (model.means[second] + end)[:, None]
    return np.asarray(lines.reshape(side * side, -1))


def transport(first: FloatArray, second: FloatArray) -> FloatArray:
    """A = S₁^-½ (S₁^½ S₂ S₁^½)^½ S₁^-½ [d, d] for square roots FFᵀ = S: brings a Gaussian of S₁ to one of S₂.

    Directions in which the first does not vary are left out.
    """
    values, vectors = np.linalg.eigh(first @ first.T)
    kept = values > 1e-12 * max(float(values[-1]), 1e-300)
    root = np.sqrt(np.where(kept, values, 0.0))
    inverse = np.divide(1.0, root, out=np.zeros_like(root), where=kept)
    middle = (vectors * root) @ vectors.T @ second
    inner, turned = np.linalg.eigh(middle @ middle.T)
    back = (vectors * inverse) @ vectors.T
    return np.asarray(back @ (turned * np.sqrt(np.maximum(inner, 0.0))) @ turned.T @ back)
