"""Lightning checkpoints without pickle: tensors in safetensors, the rest in its JSON header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import CheckpointIO
from safetensors import safe_open
from safetensors.torch import save

from synth.files import write_whole

_TENSOR = "__tensor__"
_TUPLE = "__tuple__"
_PAIRS = "__pairs__"


class SafetensorsCheckpointIO(CheckpointIO):
    """Writes a checkpoint's nested dicts as one safetensors file whose header holds everything that is no tensor."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the checkpoint whole, readable by its owner only. Raises TypeError for values that are not plain."""
        tensors: dict[str, torch.Tensor] = {}
        header = json.dumps(_pack(checkpoint, tensors))
        write_whole(Path(path), save(tensors or {"empty": torch.zeros(1)}, metadata={"checkpoint": header}))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint written by `save_checkpoint`; tensors come to the CPU."""
        with safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header = json.loads(file.metadata()["checkpoint"])
        checkpoint: dict[str, Any] = _unpack(header, tensors)
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def _pack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().clone().contiguous()
        return {_TENSOR: key}
    if isinstance(value, dict):
        # JSON keys are text; optimizer states are keyed by number.
        return {_PAIRS: [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_pack(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_pack(item, tensors) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a checkpoint holds a {type(value).__name__}, which is not written")


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(_unpack(item, tensors) for item in value[_TUPLE])
    return {_unpack(k, tensors): _unpack(v, tensors) for k, v in value[_PAIRS]}
