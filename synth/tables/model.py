"""The released model: everything sampling needs, in safetensors and JSON, and nothing else.

All of it follows from noised measurements and the public schema, so sampling costs no budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from synth.model_files import CONFIG_FILE, load_model, save_model
from synth.schema import Schema, parse_schema
from synth.tables.codec import Codec, codecs_of
from synth.tables.decode import ColumnDecoder
from synth.tables.generator import Generator
from synth.tables.rules import Rule, rules_of
from synth.tables.sum_tables import kept_shares
from synth.tables.sums import Sum
from synth.tables.targets import Encoding

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FORMAT = "dp-synth-table-generator/1"


@dataclass(frozen=True)
class TableModel:
    """Fitted generators and the decoders of their bins.

    Attributes:
        schema: the public schema.
        encoding: columns and bins of the pair stage.
        target: the column that is the class itself, or whose cells make the classes; None without one.
        class_share: share of each class [classes].
        class_of_cell: class of each of the target's cells; [0] without a target.
        decoders: column → decoder.
        members: fitted generators; rows come from each in equal number.
        rows: how many rows a full release has (the noised or declared count).
    """

    schema: Schema
    encoding: Encoding
    target: str | None
    class_share: FloatArray
    class_of_cell: IntArray
    decoders: dict[str, ColumnDecoder]
    members: tuple[Generator, ...]
    rows: int

    @cached_property
    def codecs(self) -> dict[str, Codec]:
        """Codecs of the learned columns."""
        return codecs_of(self.schema)

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The declared rules, which every drawn row meets."""
        return rules_of(self.schema)

    def ruled_by(self, rules: Sequence[Rule]) -> TableModel:
        """The same model under these rules alone."""
        other = replace(self)
        vars(other).update(codecs=self.codecs, shares=self.shares, rules=tuple(rules))  # as if worked out
        return other

    @cached_property
    def shares(self) -> npt.NDArray[np.float32]:
        """Column distributions of every latent point of every member within every class [classes, K, D]."""
        with torch.inference_mode():
            return np.concatenate([member.all_points().cpu().numpy() for member in self.members], axis=1)

    def bin_shares(self, name: str) -> FloatArray:
        """Probability of each bin of a column, or of each class of the target, at each latent point [C·K, bins]."""
        classes, points, width = self.shares.shape
        if name in self.encoding.names:
            return self.shares.reshape(classes * points, width)[:, self.encoding.place(name)].astype(np.float64)
        return np.repeat(np.eye(classes), points, axis=0)

    @cached_property
    def kept_shares(self) -> dict[str, FloatArray]:
        """Summed column → weight of each of its bins at each class and latent point, given the sums [C·K, bins]."""
        sums = [rule for rule in self.rules if isinstance(rule, Sum)]
        names = {name for rule in sums for name in rule.columns}
        return kept_shares(sums, self.codecs, self.decoders, {name: self.bin_shares(name) for name in names})

    @property
    def parameters(self) -> int:
        """Trained parameters of all members."""
        return sum(p.numel() for member in self.members for p in member.parameters())

    def save(self, folder: Path) -> None:
        """Write the model's two files; the same model gives the same bytes."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "class_share": self.class_share,
            "class_of_cell": self.class_of_cell,
        }
        for i, member in enumerate(self.members):
            arrays |= {f"member{i}.{k}": v.detach().cpu().numpy() for k, v in member.state_dict().items()}
        for j, name in enumerate(self.encoding.names):
            for field in ("bin_of_cell", "share", "singles", "single_share", "digits"):
                arrays[f"column{j}.{field}"] = getattr(self.decoders[name], field)
        first = self.members[0]
        config = {
            "format": FORMAT,
            "rows": self.rows,
            "target": self.target,
            "members": len(self.members),
            "latent_points": first.latent_points,
            "latent_size": int(first.get_buffer("bank").shape[1]),
            "hidden_size": first.hidden_size,
            "columns": list(self.encoding.names),
            "bins": list(self.encoding.sizes),
            "schema": self.schema.model_dump(mode="json", exclude_defaults=True),
        }
        save_model(folder, config, arrays)

    @staticmethod
    def load(folder: Path) -> TableModel:
        """Read a model written by `save`. Raises VerificationFailed when the files are not such a model."""
        return load_model(folder, _assemble, holds="a table model", form=FORMAT)


def _assemble(config: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> TableModel:
    encoding = Encoding(names=tuple(config["columns"]), sizes=tuple(config["bins"]))
    decoders = {
        name: ColumnDecoder(
            **{f: arrays[f"column{j}.{f}"] for f in ("bin_of_cell", "share", "singles", "single_share", "digits")}
        )
        for j, name in enumerate(encoding.names)
    }
    members = []
    for i in range(config["members"]):
        member = new_generator(
            classes=len(arrays["class_share"]),
            sizes=encoding.sizes,
            latent_points=config["latent_points"],
            latent_size=config["latent_size"],
            hidden_size=config["hidden_size"],
            seed=0,
        )
        prefix = f"member{i}."
        state = {k.removeprefix(prefix): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(prefix)}
        member.load_state_dict(state)
        members.append(member.eval())
    return TableModel(
        schema=parse_schema(config["schema"], file=CONFIG_FILE),
        encoding=encoding,
        target=config["target"],
        class_share=arrays["class_share"],
        class_of_cell=arrays["class_of_cell"],
        decoders=decoders,
        members=tuple(members),
        rows=config["rows"],
    )


def new_generator(
    *, classes: int, sizes: Sequence[int], latent_points: int, latent_size: int, hidden_size: int, seed: int
) -> Generator:
    """A generator with weights and bank drawn from `seed`, leaving torch's global state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Generator(
            classes=classes,
            sizes=sizes,
            latent_points=latent_points,
            latent_size=latent_size,
            hidden_size=hidden_size,
            randomness=torch.default_generator,
        )
