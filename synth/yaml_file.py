"""Reading YAML 1.2 (so that `no` is a word, and 1e-5 a number) and turning validation into plain problems."""

from __future__ import annotations

import copy
import functools
import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from synth.errors import InvalidConfig

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds. Raises InvalidConfig (with line and column) for anything else."""
    if path.is_dir():
        raise InvalidConfig(str(path), ["is a folder; name the YAML file itself"])
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidConfig(str(path), ["no such file; `synth init DIR` writes a commented one"]) from None
    except UnicodeDecodeError:
        raise InvalidConfig(str(path), ["is not UTF-8 text; save it as a UTF-8 YAML file"]) from None
    except OSError as error:
        raise InvalidConfig(str(path), [f"cannot be read ({error.strerror})"]) from None
    try:
        value = copy.deepcopy(_parsed(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        line = "".join(text.splitlines()[mark.line : mark.line + 1]) if mark else ""
        hint = '; a value with ${…} is quoted: "${NAME}"' if "${" in line else ""
        raise InvalidConfig(str(path), [f"broken YAML, {where}{_first_line(error.problem)}{hint}"]) from None
    except (YAMLError, ValueError) as error:
        raise InvalidConfig(str(path), [f"broken YAML, {_first_line(str(error))}"]) from None
    if not isinstance(value, dict):
        raise InvalidConfig(str(path), ["must be a mapping of `key: value` lines at its top level"])
    return value


@functools.lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    """Kept: a run reads its two files some seventy times, at every stage."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    return yaml.load(text)


class _Constructor(SafeConstructor):
    """Values as YAML 1.2 has them, but no number with zeros in front: 07 would be 7, and a code has lost its zero."""

    def construct_yaml_int(self, node: Any) -> Any:
        if re.fullmatch(r"[-+]?0[0-9_]+", node.value):
            raise ConstructorError(
                problem=f'{node.value} is a number with a zero in front; write "{node.value}" for a code, '
                "or the number without the zero",
                problem_mark=node.start_mark,
            )
        return super().construct_yaml_int(node)

    def construct_yaml_timestamp(self, node: Any, values: Any = None) -> Any:
        try:
            return super().construct_yaml_timestamp(node, values)
        except (ValueError, OverflowError):
            raise ConstructorError(problem=f"{node.value} is no date", problem_mark=node.start_mark) from None


_Constructor.add_constructor("tag:yaml.org,2002:int", _Constructor.construct_yaml_int)
_Constructor.add_constructor("tag:yaml.org,2002:timestamp", _Constructor.construct_yaml_timestamp)


def fill_environment(value: Any, environment: Mapping[str, str] | None = None) -> tuple[Any, list[str]]:
    """`value` with every `${NAME}` in its strings filled in, and the names that are not set."""
    known = os.environ if environment is None else environment
    missing: list[str] = []

    def fill(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: fill(child) for key, child in item.items()}
        if isinstance(item, list):
            return [fill(child) for child in item]
        if isinstance(item, str):
            missing.extend(name for name in _VARIABLE.findall(item) if name not in known)
            return _VARIABLE.sub(lambda match: known.get(match.group(1), ""), item)
        return item

    return fill(value), missing


def keys_of(*models: type[BaseModel]) -> set[str]:
    """The keys a user can write for these models."""
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def problems_of(
    error: ValidationError, names: Mapping[tuple[str | int, ...], str] | None = None, *, known: Iterable[str] = ()
) -> list[str]:
    """One phrase a problem: where, what, and for an unknown key the nearest of the `known` ones. No input values."""
    found = []
    for item in error.errors(include_url=False, include_input=False):
        place = tuple(part for part in item["loc"] if not _is_branch(part))
        label = (names or {}).get(place[:2], "") if names else ""
        where = ".".join(str(part) for part in place) or "file"
        if label:
            where = ".".join([label, *(str(part) for part in place[2:])])
        found.append(f"{where}: {_phrase(item, known)}")
    return found


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` when a known word is close, else nothing."""
    match = get_close_matches(word, list(known), n=1)
    return f" (did you mean {match[0]}?)" if match else ""


def _phrase(item: Any, known: Iterable[str]) -> str:
    match item["type"]:
        case "extra_forbidden":
            if item["loc"][-1] in known:
                return "unknown key here (another kind or section has it); remove it"
            return f"unknown key{nearest(str(item['loc'][-1]), known)}; remove it or correct its spelling"
        case "missing":
            return "is required and absent"
        case "union_tag_not_found":
            return "kind is required and absent"
        case "union_tag_invalid":
            return f"kind should be one of {item['ctx']['expected_tags']}"
        case "string_type":
            return "should be a valid string; a number or a date is one in quotes"
    message = str(item["msg"]).removeprefix("Value error, ")
    message = message.replace("Input should be", "should be").replace("a valid tuple", "a list")
    return re.sub(r"a valid dictionary or .*", "a mapping of keys to values", message)


def _is_branch(part: str | int) -> bool:
    """Pydantic names the branch of a tagged union in the location; a user never wrote it."""
    return part in {"integer", "continuous", "categorical", "boolean", "datetime", "id"} or (
        isinstance(part, str) and ("[" in part or part in {"int", "str", "float", "literal"})
    )


def _first_line(text: object) -> str:
    return str(text or "not understood").strip().splitlines()[0]
