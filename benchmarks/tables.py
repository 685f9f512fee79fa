"""The tables that synthesizers are compared on: where the rows are, the public schema, and what they were used for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tabular import REPOSITORY, Table, split

from synth.errors import UserError
from synth.schema import load_schema


@dataclass(frozen=True)
class KnownTable:
    """A table by name. `shipped` ones lie in data/ and are split 80/20; others come as train and test files."""

    name: str
    tuned: bool
    shipped: bool
    target_drop: tuple[str, ...] = ()

    @property
    def schema_file(self) -> Path:
        """The public schema, which the repository holds for every table."""
        if self.shipped:
            return REPOSITORY / "data" / self.name / "schema.yaml"
        return REPOSITORY / "benchmarks" / "tables" / f"{self.name}.yaml"


TABLES = {
    table.name: table
    for table in (
        KnownTable("adult", tuned=True, shipped=True),
        KnownTable(
            "support2",
            tuned=True,
            shipped=True,
            target_drop=("followup_days", "sfdm2", "dnr", "surv2m", "surv6m", "sps"),
        ),
        KnownTable("compas", tuned=False, shipped=False, target_drop=("is_recid",)),
        KnownTable("nist_ma2019", tuned=False, shipped=False, target_drop=("PINCP",)),
        KnownTable("diabetes130", tuned=False, shipped=False),
    )
}


def open_table(known: KnownTable, data: Path | None, folder: Path) -> Table:
    """The table's two files and schema. Raises UserError when they are not there."""
    schema = load_schema(known.schema_file)
    if known.shipped:
        folder.mkdir(parents=True, exist_ok=True)
        train, test = split(REPOSITORY / "data" / known.name / f"{known.name}.parquet", folder)
        return Table(train, test, known.schema_file, schema, known.target_drop)
    if data is None:
        raise UserError(
            f"{known.name} is not shipped: name the folder with {known.name}/train.parquet and test.parquet by --data"
        )
    train, test = (data.resolve() / known.name / f"{part}.parquet" for part in ("train", "test"))
    if not (train.is_file() and test.is_file()):
        raise UserError(f"--data: no {known.name}/train.parquet and {known.name}/test.parquet there")
    return Table(train, test, known.schema_file, schema, known.target_drop)
