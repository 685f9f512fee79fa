"""The public schema: what the steward declares about a table before anyone looks at it.

Nothing here is learned from private data. A column's domain (bounds, categories) is public knowledge;
a value outside of it is mapped by the declared rule `outside`, without a trace in public output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML

from synth.errors import InvalidConfig, NotBuiltYet, UnconfirmedDomain
from synth.yaml_file import keys_of, nearest, problems_of, read_yaml

EPOCH = datetime(1970, 1, 1)
RESOLUTION_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
KINDS = ("integer", "continuous", "categorical", "boolean", "datetime", "id")
MAX_CATEGORIES = 50_000
MAX_ROWS = 10**12
LARGEST_WHOLE = 2**53  # beyond it, double precision and canonical JSON lose whole numbers
LARGEST_REAL = 1e300
WIDEST_STEP = 9 * 10**15
"""So many steps of a whole column, on both sides of zero, stand for bounds that are still to be estimated."""
ESTIMATE = "estimate"
SMALLEST_SPAN = 1e-300  # cells are small parts of a span, and doubles end near 1e-308
MOST_DECIMALS = 12
Outside = Literal["clip", "missing", "other", "refuse"]


def _whole(value: Any) -> Any:
    """A whole number may be written 5.0; a boolean is never a number."""
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


def _category(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are not categories: use `kind: boolean`, or quote the words")
    if value is None:
        raise ValueError("null is no category: declare missing values with `nullable: true`, or quote the word")
    if isinstance(value, date):
        return value.isoformat()
    return value


def _moment(value: Any) -> Any:
    """A date or time, quoted or not, as a naive datetime (an offset is converted to UTC)."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError("should be a date such as 1989-01-31 or 1989-01-31 12:00:00") from None
    if isinstance(value, datetime):
        try:
            return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        except OverflowError:
            raise ValueError("should lie within the years 1 to 9999 in UTC") from None
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    raise ValueError("should be a date such as 1989-01-31")


def _in_words(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _not_empty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Checked after the items: pydantic's own minimum would count only those that are valid."""
    if not value:
        raise ValueError("should hold at least one entry")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Real = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Category = Annotated[int | float | str, BeforeValidator(_category)]


class Column(BaseModel):
    """What every kind of column may say."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    name: str = Field(min_length=1)
    nullable: bool = False
    description: str = ""
    unit: str = ""
    labels: dict[str | int | float, str] = {}
    outside: Outside | None = None
    missing_codes: tuple[Category, ...] = ()
    """What stands for a missing value in the source, beside null."""
    domain: Literal["unconfirmed", "confirmed"] = "confirmed"

    @model_validator(mode="after")
    def _outside_fits(self) -> Column:
        if self.outside == "missing" and not self.nullable:
            raise ValueError("`outside: missing` needs `nullable: true`")
        return self

    @model_validator(mode="after")
    def _codes_fit(self) -> Column:
        if self.missing_codes and not self.nullable:
            raise ValueError("`missing_codes` needs `nullable: true`")
        return self


class OrderedColumn(Column):
    """Numbers and dates: values on a line between two public bounds."""

    scale: Literal["linear", "log"] = "linear"
    bounds_are: Literal["declared", "to estimate", "estimated", "assumed"] = "declared"
    """What `bounds: estimate` becomes: from the whole of the kind to what a run has found, or assumed where it found
    nothing. A bundle's schema says so beside the bounds."""

    @classmethod
    def widest(cls, declared: Mapping[str, Any]) -> tuple[Any, Any]:
        """The bounds that stand for those still to be estimated: what a column of this kind can hold."""
        raise NotImplementedError

    @property
    def unbounded(self) -> Self:
        """The column as it is before its bounds are estimated."""
        return self.model_copy(update={"bounds": self.widest(self.model_dump()), "bounds_are": "to estimate"})

    @model_validator(mode="before")
    @classmethod
    def _may_be_estimated(cls, declared: Any) -> Any:
        if not isinstance(declared, dict):
            return declared
        if declared.get("bounds") != ESTIMATE:
            if declared.get("bounds_are") == "to estimate":
                raise ValueError("bounds are estimated where the schema says `bounds: estimate`")
            if isinstance(declared.get("bounds"), str):
                raise ValueError("bounds: should be [lowest, highest], or the word estimate")
            return declared
        return {**declared, "bounds": cls.widest(declared), "bounds_are": "to estimate"}

    @model_validator(mode="after")
    def _no_refusal(self) -> OrderedColumn:
        if self.bounds_are == "to estimate" and self.outside == "refuse":
            raise ValueError(
                "`bounds: estimate` is not for `outside: refuse`: what is rare lies outside of estimated bounds; use "
                "clip or missing, or declare the bounds"
            )
        return self

    @model_validator(mode="after")
    def _no_other(self) -> OrderedColumn:
        if self.outside == "other":
            raise ValueError("`outside: other` is for categorical columns; use clip, missing or refuse")
        return self


def _check_bounds(low: Any, high: Any) -> None:
    if not low <= high:
        raise ValueError("bounds are reversed: write [lowest, highest]")


class IntegerColumn(OrderedColumn):
    """Whole numbers within inclusive bounds; int64 on output."""

    kind: Literal["integer"]
    bounds: tuple[Whole, Whole]

    @classmethod
    def widest(cls, _declared: Mapping[str, Any]) -> tuple[int, int]:
        """See `OrderedColumn`."""
        return -WIDEST_STEP, WIDEST_STEP

    @model_validator(mode="after")
    def _ordered(self) -> IntegerColumn:
        _check_bounds(*self.bounds)
        if max(abs(b) for b in self.bounds) >= LARGEST_WHOLE:
            raise ValueError("bounds must lie within ±2^53")
        return self


class ContinuousColumn(OrderedColumn):
    """Real numbers within inclusive bounds; float64 on output, rounded to `decimals` when declared."""

    kind: Literal["continuous"]
    bounds: tuple[Real, Real]
    decimals: int | None = Field(default=None, ge=0, le=MOST_DECIMALS)

    @classmethod
    def widest(cls, declared: Mapping[str, Any]) -> tuple[float, float]:
        """See `OrderedColumn`; what is no number of decimals is told of by its own check."""
        decimals = declared.get("decimals")
        end = LARGEST_REAL
        if isinstance(decimals, (int, float)) and 0 <= decimals <= MOST_DECIMALS:
            end = WIDEST_STEP / 10 ** int(decimals)
        return -end, end

    @model_validator(mode="after")
    def _ordered(self) -> ContinuousColumn:
        low, high = self.bounds
        _check_bounds(low, high)
        if max(abs(low), abs(high)) > LARGEST_REAL:
            raise ValueError("bounds must lie within ±1e300")
        if self.decimals is None and 0 < high - low < SMALLEST_SPAN:
            raise ValueError("bounds lie closer together than 1e-300: declare a larger unit, or equal bounds")
        if self.decimals is not None:
            if max(abs(low), abs(high)) * 10**self.decimals >= LARGEST_WHOLE:
                raise ValueError("bounds and decimals need more than 15 digits: declare fewer decimals, or none")
            first, last = self.steps
            if first > last:
                raise ValueError("the bounds hold no value at the declared decimals")
        return self

    @property
    def steps(self) -> tuple[int, int]:
        """First and last value within the bounds, in units of the last declared decimal."""
        assert self.decimals is not None
        # As it is written: in double precision 84999999.99 times a hundred is a little less.
        low, high = (round(Decimal(repr(bound)).scaleb(self.decimals), 6) for bound in self.bounds)
        return math.ceil(low), math.floor(high)


class DatetimeColumn(OrderedColumn):
    """Moments within inclusive bounds at a resolution; timestamp[us] on output."""

    kind: Literal["datetime"]
    bounds: tuple[Moment, Moment]
    resolution: Literal["second", "minute", "hour", "day"] = "second"

    @classmethod
    def widest(cls, _declared: Mapping[str, Any]) -> tuple[datetime, datetime]:
        """See `OrderedColumn`."""
        return datetime.min, datetime.max.replace(microsecond=0)

    @model_validator(mode="after")
    def _ordered(self) -> DatetimeColumn:
        _check_bounds(*self.bounds)
        first, last = self.steps
        if first > last:
            raise ValueError("the bounds hold no moment at the declared resolution")
        return self

    @property
    def steps(self) -> tuple[int, int]:
        """First and last moment within the bounds, in units of the resolution since 1970."""
        unit = timedelta(seconds=RESOLUTION_SECONDS[self.resolution])
        low, high = (bound - EPOCH for bound in self.bounds)
        return -(-low // unit), high // unit


class Hierarchy(BaseModel):
    """Which levels are near to each other: by the characters they begin with, or by named groups.

    Attributes:
        prefix: numbers of first characters, ascending; levels that share the most are nearest.
        groups: name → its levels; a level stands in one group at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefix: tuple[Annotated[Whole, Field(ge=1, le=100)], ...] = ()
    groups: dict[str, Annotated[tuple[Category, ...], AfterValidator(_not_empty)]] = {}

    @field_validator("prefix", mode="before")
    @classmethod
    def _one_length(cls, value: Any) -> Any:
        return value if isinstance(value, (list, tuple)) else (value,)

    @model_validator(mode="after")
    def _one_of_both(self) -> Hierarchy:
        if bool(self.prefix) == bool(self.groups):
            raise ValueError("write one of both, `prefix: 3` (or `[1, 3]`) or `groups: {NAME: [LEVEL, LEVEL]}`")
        if list(self.prefix) != sorted(set(self.prefix)):
            raise ValueError("prefix: lengths are written in ascending order, each once")
        return self


class CategoricalColumn(Column):
    """One of a public list of levels: text, or numbers matched by value (5 = 5.0)."""

    kind: Literal["categorical"]
    categories: Annotated[tuple[Category, ...], AfterValidator(_not_empty)] = Field(max_length=MAX_CATEGORIES)
    ordered: bool = False
    other: Category | None = Field(default=None, description="the level that `outside: other` maps to")
    hierarchy: Hierarchy | None = None

    @property
    def partitions(self) -> tuple[tuple[int, ...], ...]:
        """The group of each level, finest grouping first; -1 is no group. Empty without a hierarchy."""
        if self.hierarchy is None:
            return ()
        keys = [level_key(level) for level in self.categories]
        group = {level_key(level): i for i, own in enumerate(self.hierarchy.groups.values()) for level in own}
        if group:
            return (tuple(group.get(key, -1) for key in keys),)
        finest_first = [[key[:length] for key in keys] for length in reversed(self.hierarchy.prefix)]
        return tuple(tuple(starts.index(start) for start in starts) for starts in finest_first)

    @property
    def numeric(self) -> bool:
        """Whether every level is a number."""
        return all(not isinstance(level, str) for level in self.categories)

    @property
    def whole(self) -> bool:
        """Whether every level is a whole number (int64 on output)."""
        return self.numeric and all(float(level).is_integer() for level in self.categories)

    @model_validator(mode="after")
    def _levels(self) -> CategoricalColumn:
        keys = [level_key(level) for level in self.categories]
        if len(set(keys)) < len(keys):
            raise ValueError("categories hold the same level twice (numbers match by value)")
        if self.other is not None and level_key(self.other) not in keys:
            raise ValueError("`other` must be one of the categories")
        if not set(keys).isdisjoint(level_key(code) for code in self.missing_codes):
            raise ValueError("`missing_codes` holds one of the categories: it is missing, or a level")
        if self.outside == "clip":
            raise ValueError("`outside: clip` is for numbers and dates; use missing, other or refuse")
        if self.outside == "other" and self.other_level is None:
            raise ValueError("`outside: other` needs a level named 'other', or `other: LEVEL`")
        if any(isinstance(level, float) and not math.isfinite(level) for level in self.categories):
            raise ValueError("categories must be finite; declare missing values with `nullable: true`")
        if any(not isinstance(level, str) and abs(level) >= LARGEST_WHOLE for level in self.categories):
            raise ValueError("numeric categories must lie within ±2^53; quote longer ones to make them text")
        named = [
            level_key(level) for own in (self.hierarchy.groups if self.hierarchy else {}).values() for level in own
        ]
        known = set(keys)
        for level in named:
            if level not in known:
                raise ValueError(f"hierarchy: {level} is not one of the categories")
        if len(set(named)) < len(named):
            twice = next(level for i, level in enumerate(named) if level in named[:i])
            raise ValueError(f"hierarchy: {twice} stands in two groups, or twice in one")
        return self

    @property
    def other_level(self) -> int | None:
        """Index of the level that stands for everything outside the domain."""
        if self.other is not None:
            return [level_key(level) for level in self.categories].index(level_key(self.other))
        named = [i for i, level in enumerate(self.categories) if str(level).casefold() == "other"]
        return named[0] if named else None


class BooleanColumn(Column):
    """True or false; bool on output."""

    kind: Literal["boolean"]

    @model_validator(mode="after")
    def _no_clip(self) -> BooleanColumn:
        if self.outside in {"clip", "other"}:
            raise ValueError(f"`outside: {self.outside}` is not for booleans; use missing or refuse")
        return self


class IdColumn(Column):
    """An identifier: never read, never learned; fresh ids are made on output."""

    kind: Literal["id"]

    @model_validator(mode="after")
    def _no_codes(self) -> IdColumn:
        if self.missing_codes:
            raise ValueError("`missing_codes` is for columns that are read; an id never is")
        return self


EstimableColumn = IntegerColumn | ContinuousColumn | DatetimeColumn
COLUMN_TYPES = (IntegerColumn, ContinuousColumn, DatetimeColumn, CategoricalColumn, BooleanColumn, IdColumn)
AnyColumn = Annotated[
    IntegerColumn | ContinuousColumn | DatetimeColumn | CategoricalColumn | BooleanColumn | IdColumn,
    Field(discriminator="kind"),
]


class Determined(BaseModel):
    """A rule: every level of the first column has one value of the second."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    determines: tuple[str, str]
    map: dict[bool | int | float | str, Annotated[bool | int | float | str, BeforeValidator(_in_words)]] = Field(
        min_length=1
    )


# Tags that are left out where a problem is said to lie.
AnyRule = Annotated[
    Annotated[str, Tag("str")] | Annotated[Determined, Tag("[mapping]")],
    Discriminator(lambda rule: "[mapping]" if isinstance(rule, (dict, Determined)) else "str"),
]


class Declaration(BaseModel):
    """What a schema of any kind says about the data as a whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    population: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$")
    description: str = ""
    privacy_unit: str = Field(default="row", min_length=1, description="row, or the name of the person column")
    max_rows_per_person: Annotated[Whole, Field(ge=1, le=10_000)] = 1
    row_count: Literal["private"] | Annotated[Whole, Field(ge=1, le=MAX_ROWS)] = "private"

    @property
    def ledger_population(self) -> str:
        """The ledger's key: the declared population, else the dataset's name."""
        return self.population or self.dataset

    @property
    def unit(self) -> Literal["row", "person"]:
        """What the privacy guarantee is about."""
        return "row" if self.privacy_unit == "row" else "person"

    @property
    def person_column(self) -> str | None:
        """The column that tells people apart; None when each row is a person of its own."""
        return None if self.privacy_unit == "row" else self.privacy_unit

    def restated(self) -> dict[str, Any]:
        """What the bundle's schema.yaml says in other words than the model does, by key."""
        return {}


class Schema(Declaration):
    """schema.yaml of a table, validated. Frozen; `columns` in the order of the output."""

    target: str | None = None
    domains: Literal["unconfirmed", "confirmed"] = "confirmed"
    """Of all columns at once; those drafted from a data dictionary wait for it."""
    columns: Annotated[tuple[AnyColumn, ...], AfterValidator(_not_empty)]
    rules: tuple[AnyRule, ...] = ()

    @property
    def learned_columns(self) -> tuple[AnyColumn, ...]:
        """The columns that are read and learned: all but the ids."""
        return tuple(column for column in self.columns if column.kind != "id")

    @property
    def columns_to_estimate(self) -> tuple[EstimableColumn, ...]:
        """The columns whose bounds are still to be estimated."""
        ordered = (column for column in self.columns if isinstance(column, OrderedColumn))
        return tuple(column for column in ordered if column.bounds_are == "to estimate")

    def with_bounds(self, found: Mapping[str, Mapping[str, Any]]) -> Schema:
        """The schema with other bounds: column → what its `bounds` and `bounds_are` say in schema.yaml."""
        columns = (
            type(column).model_validate({**column.model_dump(), **found[column.name]})
            if column.name in found
            else column
            for column in self.columns
        )
        return self.model_copy(update={"columns": tuple(columns)})

    def column(self, name: str) -> AnyColumn:
        """The column of that name. Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def refuse_unconfirmed(self) -> None:
        """Raise UnconfirmedDomain when a drafted domain has not been confirmed by the steward."""
        drafted = [column.name for column in self.columns if column.domain == "unconfirmed"]
        if drafted:
            raise UnconfirmedDomain(
                f"schema: the domain of {', '.join(drafted)} is a draft; replace it by public knowledge "
                "(a codebook) and remove `domain: unconfirmed`"
            )
        if self.domains == "unconfirmed":
            raise UnconfirmedDomain(
                "schema: its domains were drafted from a data dictionary; read them, see that it is public and was not "
                "computed from the data, and remove `domains: unconfirmed`"
            )


def level_key(level: Any) -> str:
    """One spelling a level: numbers match by value, so 5, 5.0 and "5" of a numeric column are the same."""
    if isinstance(level, float) and level.is_integer():
        return str(int(level))
    return str(level)


def public_yaml(schema: Declaration) -> str:
    """The schema as YAML for the bundle: what was declared and nothing else, so no comment of the steward's file."""
    stated = {
        "dataset": schema.dataset,
        "population": schema.ledger_population,
        "privacy_unit": schema.privacy_unit,
        "max_rows_per_person": schema.max_rows_per_person,
        "row_count": schema.row_count,
    }
    text = StringIO()
    yaml = YAML()
    yaml.width, yaml.default_flow_style = 2**16, None
    yaml.dump({**stated, **schema.model_dump(mode="json", exclude_defaults=True), **schema.restated()} | stated, text)
    return text.getvalue()


def load_schema(path: Path) -> Schema:
    """Read and validate schema.yaml; all problems together. Raises InvalidConfig or NotBuiltYet."""
    return parse_schema(read_yaml(path), file=str(path))


def parse_schema(raw: dict[str, Any], *, file: str) -> Schema:
    """Validate a schema's mapping. `file` names it in errors."""
    _refuse_unbuilt(raw, file)
    problems = []
    names: dict[tuple[str | int, ...], str] = {}
    columns = raw.get("columns")
    for i, column in enumerate(columns if isinstance(columns, list) else []):
        name = column.get("name") if isinstance(column, dict) else None
        names["columns", i] = f"column {name}" if isinstance(name, str) and name else f"column {i + 1}"
    schema = None
    try:
        schema = Schema.model_validate(raw)
    except ValidationError as error:
        problems += problems_of(error, names, known=keys_of(Schema, Determined, *COLUMN_TYPES))
    problems += _problems_between_columns(raw)
    if schema is not None and not problems:
        problems += _problems_of_rules(schema)
    if problems or schema is None:
        raise InvalidConfig(file, problems)
    return schema


def _problems_between_columns(raw: dict[str, Any]) -> list[str]:
    """What no column can see alone; on the raw mapping, so that it is reported with all the rest."""
    columns = raw.get("columns")
    columns = [c for c in columns if isinstance(c, dict)] if isinstance(columns, list) else []
    names = [c["name"] for c in columns if isinstance(c.get("name"), str)]
    problems = [f"column {n}: declared twice" for n in sorted({n for n in names if names.count(n) > 1})]
    if columns and all(c.get("kind") == "id" for c in columns):
        problems.append("columns: only ids are declared, so there is nothing to learn")
    unit = raw.get("privacy_unit", "row")
    if unit == "row" and raw.get("max_rows_per_person", 1) not in (1, 1.0):
        problems.append("max_rows_per_person: above 1 needs the person column as privacy_unit")
    if isinstance(unit, str) and unit != "row":
        match = [c for c in columns if c.get("name") == unit]
        if not match:
            problems.append(f"privacy_unit: {unit} is neither `row` nor a declared column{nearest(unit, names)}")
        elif match[0].get("kind") != "id":
            problems.append(f"privacy_unit: column {unit} tells people apart, so its kind is id")
    target = raw.get("target")
    if target is not None:
        match = [c for c in columns if c.get("name") == target]
        if not match:
            problems.append(f"target: {target} is not a declared column{nearest(str(target), names)}")
        elif match[0].get("kind") == "id":
            problems.append("target: an id column cannot be the target")
    return problems


def _problems_of_rules(schema: Schema) -> list[str]:
    if not schema.rules:
        return []
    from synth.tables.rules import problems_of_rules  # which reads schemas itself

    return problems_of_rules(schema)


def _refuse_unbuilt(raw: dict[str, Any], file: str) -> None:
    """Contract features this version does not have are refused, never treated as something weaker."""

    def refuse(what: str) -> None:
        raise NotBuiltYet(f"{file}: {what}")

    if raw.get("kind") == "image" or "image" in raw:
        refuse("this is offered for tables, not for images, by this version")
