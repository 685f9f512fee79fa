"""run.yaml, validated into one frozen model: a section a stage, unknown keys refused, nothing data-dependent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from synth.errors import InvalidConfig, NotBuiltYet
from synth.image_schema import ImageSchema, load_any_schema
from synth.schema import Schema
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
    """Where the private rows are: Parquet or CSV, or a folder of images with a CSV file of their labels.

    `path` is what holds a row for each record: a file of a table or a folder of such files, or `labels` of a `folder`.
    """

    path: Path
    folder: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _labels_are_the_rows(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not {"folder", "labels"} & set(value):
            return value
        if "path" in value:
            raise ValueError("give either `path`, or `folder` and `labels`")
        if not {"folder", "labels"} <= set(value):
            raise ValueError("a folder of images needs both `folder` and `labels` (a CSV file)")
        return {"path" if key == "labels" else key: item for key, item in value.items()}


class Database(Section):
    """Private rows in PostgreSQL: what one SELECT says. Neither URL nor query is ever shown."""

    url: SecretStr
    query: SecretStr

    @model_validator(mode="before")
    @classmethod
    def _no_files_besides(cls, value: Any) -> Any:
        if isinstance(value, dict) and {"path", "folder", "labels"} & set(value):
            raise ValueError("give either a `path`, or `url` and `query`")
        return value

    @field_validator("url")
    @classmethod
    def _postgres(cls, value: SecretStr) -> SecretStr:
        scheme, separator, _ = value.get_secret_value().partition("://")
        if not separator or scheme not in POSTGRES_SCHEMES:
            raise ValueError(
                "a database as source is PostgreSQL, postgresql://user@host:5432/database; "
                "export anything else to Parquet or CSV"
            )
        return value

    @field_validator("query")
    @classmethod
    def _some_text(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().strip() or "\0" in value.get_secret_value():
            raise ValueError("should be one SELECT, such as select * from patients")
        return value


POSTGRES_SCHEMES = {"postgresql", "postgres", "postgresql+psycopg"}


def _kind_of_source(value: Any) -> str:
    """The branch of the union, in brackets: no place of a problem shows it."""
    database = isinstance(value, Database) or (isinstance(value, dict) and bool({"url", "query"} & set(value)))
    return "[database]" if database else "[files]"


AnySource = Annotated[
    Annotated[Source, Tag("[files]")] | Annotated[Database, Tag("[database]")], Discriminator(_kind_of_source)
]


class Privacy(Section):
    """The budget of this run. `delta` should be far below one over the number of people."""

    epsilon: Number = Field(gt=0, le=100)
    delta: Number = Field(gt=0, lt=1)


class Critic(Section):
    """The critic trained by DP-SGD, when it has a share. None of it may follow from the data.

    `steps` and `sample_rate` (the chance of a person to join a step) fix what the critic costs. `processes` of this
    machine share its work, on a GPU each where there are as many: neither noise nor cost depends on them.
    """

    steps: Annotated[Count, Field(ge=1, le=1_000_000)] = 400
    sample_rate: Number = Field(default=0.02, gt=0, le=1)
    max_grad_norm: Number = Field(default=1.0, ge=1e-6, le=1e6)
    learning_rate: Number = Field(default=3e-3, gt=0, le=1)
    hidden_size: Annotated[Count, Field(ge=8, le=4096)] = 128
    weight: Number = Field(default=1.0, gt=0, le=1e6)
    processes: Annotated[Count, Field(ge=1, le=64)] = 1


IMAGE_CRITIC = {"steps": 400, "sample_rate": 0.05, "learning_rate": 1e-3}
"""Defaults for images where they are not those for tables."""
FOR_IMAGES = {"critic_share", "critic", "threads", "accelerator", "public"}
"""What a run on images has of the section `synthesizer`."""
SEEN_SIDES = range(8, 129)
"""Sides, in pixels, of the pictures that a critic can see."""


class Public(Section):
    """Public pictures (a folder, or a Parquet file as a source) that a model of private ones learns detail from.

    Nothing of them is charged. `declared` says what they are, why they are public, and their licence: it is published.
    `steps` of learning come before the first of a critic.
    """

    path: Path
    declared: str
    steps: Annotated[Count, Field(ge=1, le=1_000_000)] = 400

    @field_validator("declared")
    @classmethod
    def _in_words(cls, value: str) -> str:
        if len(value.split()) < 3:
            raise ValueError("should say in words what the pictures are, why they are public, and their licence")
        return " ".join(value.split())


class Synthesizer(Section):
    """The table recipe. The defaults were chosen on public data; see benchmarks/.

    `steps`, `latent_points` and `learning_rate` set by "auto" follow from ε and the schema alone. `critic_share` set by
    "auto" is 0.
    """

    critic_share: Literal["auto"] | Annotated[Number, Field(ge=0, le=1)] = "auto"
    critic: Critic = Critic()
    steps: Literal["auto"] | Annotated[Count, Field(ge=1, le=100_000)] = "auto"
    members: Annotated[Count, Field(ge=1, le=16)] = 3
    latent_points: Literal["auto"] | Annotated[Count, Field(ge=8, le=65_536)] = "auto"
    hidden_size: Annotated[Count, Field(ge=8, le=4096)] = 256
    learning_rate: Literal["auto"] | Annotated[Number, Field(gt=0, le=1)] = "auto"
    threads: Literal["auto"] | Annotated[Count, Field(ge=1, le=256)] = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    public: Public | None = None

    @property
    def share_of_critic(self) -> float:
        """The critic's share of what remains after bins and class sizes, in [0, 1]."""
        return 0.0 if self.critic_share == "auto" else self.critic_share


def _share_or_file(value: Any) -> str:
    """The branch of the union, in brackets. What the environment fills in is text also where it is a number."""
    try:
        float(value)
    except (TypeError, ValueError):
        return "[file]" if isinstance(value, (str, Path)) and str(value) else "[share]"
    return "[share]"


class Evaluation(Section):
    """The public score on held-out people, where it is asked for.

    `holdout` is the chance of each person to be held out, or a file (a table as `source.path`) of held-out people.
    """

    holdout: Annotated[
        Annotated[Number, Field(ge=0, lt=1), Tag("[share]")] | Annotated[Path, Tag("[file]")],
        Discriminator(_share_or_file),
    ] = 0.0

    @property
    def share(self) -> float:
        """The chance of each person of the source to be held out, in [0, 1)."""
        return 0.0 if isinstance(self.holdout, Path) else self.holdout

    @property
    def file(self) -> Path | None:
        """The file of held-out people."""
        return self.holdout if isinstance(self.holdout, Path) else None

    @property
    def holds_out(self) -> bool:
        """Whether there is a score on held-out people."""
        return self.holdout != 0


class ContentCredentials(Section):
    """A steward's own X.509 certificates (PEM, the signer's first) and private key (PEM), for content credentials."""

    certificates: Path
    key: Path


class Output(Section):
    """How many rows, and where the run folder goes; of images, who signs the content credentials (C2PA) of sheets."""

    rows: Literal["auto"] | Annotated[Count, Field(ge=1, le=1_000_000_000)] = "auto"
    directory: Path = Path("out")
    c2pa: ContentCredentials | None = None


class Scale(Section):
    """Who counts and samples: so many processes of this machine, or the workers of a Dask cluster. By default nobody
    but the process of the run.

    `scheduler` is the cluster's address, such as tls://scheduler.internal:8786.
    """

    workers: Annotated[Count, Field(ge=1, le=256)] | None = None
    scheduler: str | None = None

    @field_validator("scheduler")
    @classmethod
    def _closed(cls, value: str | None) -> str | None:
        if value is not None and not keeps_to_itself(value):
            raise ValueError(
                "should be tls://host:port, or tcp:// with a loopback address such as 127.0.0.1: exact counts travel "
                "there, and whoever reaches an open scheduler can run programs"
            )
        return value

    @model_validator(mode="after")
    def _one_of_them(self) -> Scale:
        if self.workers is not None and self.scheduler is not None:
            raise ValueError("give either `workers` or the address of a `scheduler`")
        return self

    @property
    def asked(self) -> bool:
        """Whether others than the process of the run count and sample."""
        return self.workers is not None or self.scheduler is not None


def keeps_to_itself(address: str) -> bool:
    """Whether an address (scheme://host:port) is encrypted, or of this machine alone."""
    try:
        url = urlsplit(address)
        host, port = url.hostname, url.port
    except ValueError:
        return False
    if not host or port is None or "@" in address:
        return False
    if url.scheme == "tls":
        return True
    with contextlib.suppress(ValueError):
        return url.scheme == "tcp" and ip_address(host).is_loopback
    return url.scheme == "tcp" and host == "localhost"


class LedgerSection(Section):
    """Where the durable budget is kept; nothing means the user's own data folder."""

    url: str | None = None


class RunConfig(Section):
    """run.yaml. Paths are absolute after loading."""

    source: AnySource
    schema_file: Path = Field(alias="schema")
    privacy: Privacy
    name: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$")
    synthesizer: Synthesizer = Synthesizer()
    evaluation: Evaluation = Evaluation()
    output: Output = Output()
    scale: Scale = Scale()
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
    declared: Schema | ImageSchema
    found: dict[str, dict[str, Any]] = {}
    """Bounds that this run has estimated, by column, as schema.yaml writes them."""

    @property
    def name(self) -> str:
        """The run's name: as configured, else the dataset's."""
        return self.config.name or self.declared.dataset

    @property
    def table(self) -> Schema:
        """The schema of a run on a table, with the bounds that it has estimated.

        Raises NotBuiltYet for what is asked of images and is for tables alone.
        """
        if not isinstance(self.declared, Schema):
            raise NotBuiltYet("this is offered for tables, not for images, by this version")
        return self.declared.with_bounds(self.found) if self.found else self.declared

    @property
    def asked(self) -> Schema:
        """The same as it was written, before any bounds were estimated."""
        return self.model_copy(update={"found": {}}).table

    @property
    def published(self) -> Schema | ImageSchema:
        """The schema as it is published: with the bounds that were estimated."""
        return self.declared if self.images is not None else self.table

    @property
    def rows(self) -> Path | Database:
        """Where the rows of a table are."""
        source = self.config.source
        return source if isinstance(source, Database) else source.path

    @property
    def rows_chosen_by(self) -> str:
        """What the number of synthetic rows follows from; in the words of the datasheet."""
        if self.config.output.rows != "auto":
            return "config"
        return "noised count" if self.declared.row_count == "private" else "declared row count"

    @property
    def files(self) -> Source:
        """Where the rows are when they are in files, as images are. Raises NotBuiltYet for a database."""
        source = self.config.source
        if isinstance(source, Database):
            raise NotBuiltYet(f"{self.file}: source.url: a database is offered for tables alone")
        return source

    @property
    def has_critic(self) -> bool:
        """Whether the run refines its generator against a critic."""
        return self.config.synthesizer.share_of_critic > 0

    @property
    def critic(self) -> Critic:
        """The constants of the critic, when it has a share: as configured, else the defaults of the kind."""
        asked = self.config.synthesizer.critic
        own = {} if self.images is None else IMAGE_CRITIC
        return asked.model_copy(update={k: v for k, v in own.items() if k not in asked.model_fields_set})

    @property
    def images(self) -> ImageSchema | None:
        """The schema of a run on images; None for a table."""
        return self.declared if isinstance(self.declared, ImageSchema) else None


def load_run(path: Path, environment: Mapping[str, str] | None = None) -> Run:
    """Read and validate run.yaml and its schema. Problems of both files are reported together."""
    raw = read_yaml(path)
    config, problems = None, []
    try:
        config = parse_run(raw, file=path, environment=environment)
    except InvalidConfig as error:
        problems = list(error.problems)
    schema_file = raw.get("schema")
    schema = None
    if isinstance(schema_file, str) and schema_file:
        filled, _ = fill_environment(schema_file, environment)
        try:
            schema = load_any_schema(_absolute(Path(filled), path.parent))
        except InvalidConfig as error:
            # What the environment fills in is never written out, a path included.
            named = error if filled == schema_file else InvalidConfig(schema_file, error.problems)
            if not problems:
                raise named from None
            problems.append(str(named))
    if problems:
        raise InvalidConfig(str(path), problems)
    assert config is not None
    if schema is None:
        raise InvalidConfig(str(path), ["schema: should be the path of a schema.yaml"])
    files = config.source if isinstance(config.source, Source) else None
    if files is not None and files.folder is not None and isinstance(schema, Schema):
        raise InvalidConfig(
            str(path), ["source.folder: is for images; say `kind: image` in the schema, or give a table as source.path"]
        )
    if isinstance(schema, ImageSchema):
        _refuse_for_images(config, schema, str(path))
    elif config.synthesizer.public is not None or config.output.c2pa is not None:
        place = "synthesizer.public" if config.synthesizer.public is not None else "output.c2pa"
        raise InvalidConfig(str(path), [f"{place}: is for images; leave it out"])
    return Run(file=path.resolve(), config=config, declared=schema)


def _refuse_for_images(config: RunConfig, schema: ImageSchema, file: str) -> None:
    """What a run on images does not have is refused, never passed over."""
    asked = config.synthesizer
    if isinstance(config.source, Database):
        raise NotBuiltYet(f"{file}: source.url: a database is offered for tables alone; images come as files")
    if own := asked.model_fields_set - FOR_IMAGES:
        raise InvalidConfig(file, [f"synthesizer.{name}: is for tables; leave it out" for name in sorted(own)])
    if asked.share_of_critic == 1:
        problem = "should be below 1 for images: the generator starts from the moments, which have the rest"
        raise InvalidConfig(file, [f"synthesizer.critic_share: {problem}"])
    if asked.share_of_critic > 0 and not {schema.image.height, schema.image.width} <= set(SEEN_SIDES):
        raise NotBuiltYet(
            f"{file}: synthesizer.critic_share: a critic sees pictures of {SEEN_SIDES[0]} to {SEEN_SIDES[-1]} pixels a "
            "side; declare such a form, or leave it at auto"
        )
    if config.evaluation.holds_out:
        raise NotBuiltYet(f"{file}: evaluation.holdout is offered for tables alone; leave it at 0")
    if config.scale.asked:
        raise NotBuiltYet(f"{file}: scale is offered for tables alone; leave it out")


def parse_run(raw: dict[str, Any], *, file: Path, environment: Mapping[str, str] | None = None) -> RunConfig:
    """Validate run.yaml's mapping. Relative paths are taken from the file's folder."""
    filled, missing = fill_environment(raw, environment)
    problems = [f"${{{name}}}: the environment variable is not set" for name in sorted(set(missing))]
    config = None
    try:
        config = RunConfig.model_validate(filled)
    except ValidationError as error:
        problems += problems_of(error, known=keys_of(RunConfig, *Section.__subclasses__()))
    if problems or config is None:
        raise InvalidConfig(str(file), problems)
    folder = file.resolve().parent
    return config.model_copy(
        update={
            "source": _absolute_source(config.source, folder),
            "schema_file": _absolute(config.schema_file, folder),
            "answers": _absolute(config.answers, folder),
            "synthesizer": _absolute_public(config.synthesizer, folder),
            "evaluation": _absolute_holdout(config.evaluation, folder),
            "output": _absolute_output(config.output, folder),
            "ledger": LedgerSection(url=absolute_ledger_url(config.ledger.url, folder)),
        }
    )


def parse_source(raw: dict[str, Any], *, file: Path, environment: Mapping[str, str] | None = None) -> Source | Database:
    """The section `source` of run.yaml alone, for who has no schema yet. Raises InvalidConfig."""
    filled, missing = fill_environment({"source": raw.get("source")}, environment)
    problems = [f"${{{name}}}: the environment variable is not set" for name in sorted(set(missing))]
    source = None
    try:
        source = _SourceAlone.model_validate(filled).source
    except ValidationError as error:
        problems += problems_of(error, known=keys_of(Source, Database))
    if problems or source is None:
        raise InvalidConfig(str(file), problems)
    return _absolute_source(source, file.resolve().parent)


class _SourceAlone(Section):
    source: AnySource


def _absolute_source(source: Source | Database, folder: Path) -> Source | Database:
    if isinstance(source, Database):
        return source
    pictures = _absolute(source.folder, folder) if source.folder else None
    return source.model_copy(update={"path": _absolute(source.path, folder), "folder": pictures})


def _absolute_output(output: Output, folder: Path) -> Output:
    named = output.c2pa and ContentCredentials(
        certificates=_absolute(output.c2pa.certificates, folder), key=_absolute(output.c2pa.key, folder)
    )
    return output.model_copy(update={"directory": _absolute(output.directory, folder), "c2pa": named})


def _absolute_public(synthesizer: Synthesizer, folder: Path) -> Synthesizer:
    if synthesizer.public is None:
        return synthesizer
    public = synthesizer.public.model_copy(update={"path": _absolute(synthesizer.public.path, folder)})
    return synthesizer.model_copy(update={"public": public})


def _absolute_holdout(evaluation: Evaluation, folder: Path) -> Evaluation:
    if evaluation.file is None:
        return evaluation
    return evaluation.model_copy(update={"holdout": _absolute(evaluation.file, folder)})


def absolute_ledger_url(url: str | None, folder: Path) -> str | None:
    """An SQLite url with a relative path, made absolute from `folder`; any other url as it is."""
    prefix = "sqlite:///"
    if url is None or not url.startswith(prefix):
        return url
    return prefix + str(_absolute(Path(url.removeprefix(prefix)), folder))


def _absolute(path: Path, folder: Path) -> Path:
    # Not resolved: what a link points to, if anything, is found out when it is opened.
    return path if path.is_absolute() else Path(os.path.normpath(folder / path))
