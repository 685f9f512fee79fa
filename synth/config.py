"""run.yaml, validated into one frozen model: a section a stage, unknown keys refused, nothing data-dependent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from synth.errors import InvalidConfig, NotBuiltYet
from synth.schema import Schema, load_schema
from synth.yaml_file import fill_environment, keys_of, problems_of, read_yaml


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


Number = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_no_boolean)]


class Section(BaseModel):
    """Base of the sections: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Section):
    """Where the private rows are: a Parquet or CSV file."""

    path: Path


class Privacy(Section):
    """The budget of this run. `delta` should be far below one over the number of people."""

    epsilon: Number = Field(gt=0, le=100)
    delta: Number = Field(gt=0, lt=1)


class Synthesizer(Section):
    """The table recipe. The defaults were chosen on public data; see benchmarks/.

    `steps`, `members` and `latent_points` set by "auto" follow from ε and the schema alone.
    """

    critic_share: Literal["auto"] | Annotated[Number, Field(ge=0, le=1)] = "auto"
    steps: Literal["auto"] | Annotated[Count, Field(ge=1, le=100_000)] = "auto"
    members: Annotated[Count, Field(ge=1, le=16)] = 3
    latent_points: Literal["auto"] | Annotated[Count, Field(ge=8, le=65_536)] = "auto"
    hidden_size: Annotated[Count, Field(ge=8, le=4096)] = 256
    learning_rate: Number = Field(default=3e-3, gt=0, le=1)
    threads: Literal["auto"] | Annotated[Count, Field(ge=1, le=256)] = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"


class Evaluation(Section):
    """Scores. Held-out people are not offered by this version."""

    holdout: Number = Field(default=0, ge=0, lt=1)


class Output(Section):
    """How many rows, and where the run folder goes."""

    rows: Literal["auto"] | Annotated[Count, Field(ge=1, le=1_000_000_000)] = "auto"
    directory: Path = Path("out")


class LedgerSection(Section):
    """Where the durable budget is kept; nothing means the user's own data folder."""

    url: str | None = None


class RunConfig(Section):
    """run.yaml. Paths are absolute after loading."""

    source: Source
    schema_file: Path = Field(alias="schema")
    privacy: Privacy
    name: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$")
    synthesizer: Synthesizer = Synthesizer()
    evaluation: Evaluation = Evaluation()
    output: Output = Output()
    answers: Path = Path("answers.yaml")
    ledger: LedgerSection = LedgerSection()

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if value.startswith("."):
            raise ValueError("should not start with a dot")
        return value


class Run(BaseModel):
    """A run as asked for: its config, its schema, and the file it was read from."""

    model_config = ConfigDict(frozen=True)

    file: Path
    config: RunConfig
    table: Schema

    @property
    def name(self) -> str:
        """The run's name: as configured, else the dataset's."""
        return self.config.name or self.table.dataset


def load_run(path: Path, environment: Mapping[str, str] | None = None) -> Run:
    """Read and validate run.yaml and its schema. Problems of both files are reported together."""
    raw = read_yaml(path)
    config, problems, unbuilt = None, [], None
    try:
        config = parse_run(raw, file=path, environment=environment)
    except InvalidConfig as error:
        problems = list(error.problems)
    except NotBuiltYet as error:
        unbuilt = error
    schema_file = raw.get("schema")
    schema = None
    if isinstance(schema_file, str) and schema_file:
        filled, _ = fill_environment(schema_file, environment)
        try:
            schema = load_schema(_absolute(Path(filled), path.parent))
        except InvalidConfig as error:
            # What the environment fills in is never written out, a path included.
            named = error if filled == schema_file else InvalidConfig(schema_file, error.problems)
            if not problems:
                raise named from None
            problems.append(str(named))
    if problems:
        raise InvalidConfig(str(path), problems)
    if unbuilt:
        raise unbuilt
    assert config is not None
    if schema is None:
        raise InvalidConfig(str(path), ["schema: should be the path of a schema.yaml"])
    return Run(file=path.resolve(), config=config, table=schema)


def parse_run(raw: dict[str, Any], *, file: Path, environment: Mapping[str, str] | None = None) -> RunConfig:
    """Validate run.yaml's mapping. Relative paths are taken from the file's folder."""
    filled, missing = fill_environment(raw, environment)
    problems = [f"${{{name}}}: the environment variable is not set" for name in sorted(set(missing))]
    config = None
    try:
        config = RunConfig.model_validate(_refuse_unbuilt(filled, str(file)))
    except ValidationError as error:
        problems += problems_of(error, known=keys_of(RunConfig, *Section.__subclasses__()))
    if problems or config is None:
        raise InvalidConfig(str(file), problems)
    folder = file.resolve().parent
    return config.model_copy(
        update={
            "source": Source(path=_absolute(config.source.path, folder)),
            "schema_file": _absolute(config.schema_file, folder),
            "answers": _absolute(config.answers, folder),
            "output": config.output.model_copy(update={"directory": _absolute(config.output.directory, folder)}),
            "ledger": LedgerSection(url=absolute_ledger_url(config.ledger.url, folder)),
        }
    )


def absolute_ledger_url(url: str | None, folder: Path) -> str | None:
    """An SQLite url with a relative path, made absolute from `folder`; any other url as it is."""
    prefix = "sqlite:///"
    if url is None or not url.startswith(prefix):
        return url
    return prefix + str(_absolute(Path(url.removeprefix(prefix)), folder))


def _absolute(path: Path, folder: Path) -> Path:
    # Not resolved: what a link points to, if anything, is found out when it is opened.
    return path if path.is_absolute() else Path(os.path.normpath(folder / path))


def _refuse_unbuilt(raw: dict[str, Any], file: str) -> dict[str, Any]:
    """Contract features this version does not have are refused, never treated as something weaker."""

    def section(name: str) -> dict[str, Any]:
        value = raw.get(name)
        return value if isinstance(value, dict) else {}

    source = section("source")
    if "url" in source or "query" in source:
        raise NotBuiltYet(f"{file}: source.url (a database) is not offered by this version; export to Parquet or CSV")
    if "folder" in source or "labels" in source:
        raise NotBuiltYet(f"{file}: source.folder (images) is not offered by this version; tables are")
    share = section("synthesizer").get("critic_share", "auto")
    if isinstance(share, (int, float)) and not isinstance(share, bool) and 0 < share <= 1:
        raise NotBuiltYet(
            f"{file}: synthesizer.critic_share above 0 (a DP-SGD critic) is not offered by this version; use auto or 0"
        )
    holdout = section("evaluation").get("holdout", 0)
    if (isinstance(holdout, str) and holdout) or (
        isinstance(holdout, (int, float)) and not isinstance(holdout, bool) and 0 < holdout < 1
    ):
        raise NotBuiltYet(f"{file}: evaluation.holdout is not offered by this version; leave it at 0")
    return raw
