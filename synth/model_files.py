"""The two files of a released model: its arrays in safetensors and the rest in JSON, never pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from synth.errors import InvalidConfig, VerificationFailed
from synth.files import canonical_json, write_whole

AnyArray = npt.NDArray[Any]
Model = TypeVar("Model")

WEIGHTS_FILE = "generator.safetensors"
CONFIG_FILE = "config.json"


def save_model(folder: Path, config: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> None:
    """Write both files; the same model gives the same bytes."""
    write_whole(folder / WEIGHTS_FILE, save({key: np.ascontiguousarray(arrays[key]) for key in sorted(arrays)}))
    write_whole(folder / CONFIG_FILE, canonical_json(dict(config)))


def load_model(
    folder: Path, assemble: Callable[[dict[str, Any], dict[str, AnyArray]], Model], *, holds: str, form: str
) -> Model:
    """What `assemble` makes of the config and the arrays.

    Raises VerificationFailed, naming what the folder should hold (`holds`) and its format (`form`), when the config
    states another format, or the files are missing, damaged, or not what `assemble` needs.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
        if config["format"] != form:
            raise ValueError("format")
        with safe_open(folder / WEIGHTS_FILE, framework="np") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return assemble(config, arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError, InvalidConfig):
        raise VerificationFailed(f"{folder}: does not hold {holds} of format {form}") from None
