"""One way to configure: a typed model beside its owner, YAML for a run, `key=value` to override.

`command_line.py` makes the options of a command from the same models.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from diffuir_core import UserError

ConfigT = TypeVar("ConfigT", bound="Config")

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of"}


class Config(BaseModel):
    """Base of every settings model: immutable, unknown keys are an error, a field's docstring is its help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


ClusterAddress = Annotated[
    str | None,
    Field(
        description="Ray cluster to join (auto, HOST:PORT), or to submit this to as a job and follow "
        "(http://HEAD:8265); null for RAY_ADDRESS, and without that for a Ray started on this machine."
    ),
]
"""Type of a setting that names the cluster to run on."""


def field_of(model: type[BaseModel], name: str, **changes: Any) -> Any:
    """A setting of another model, to be assigned to a field: its default, help text and bounds.

    changes: other values of `default` or `description`.
    """
    field = copy(model.model_fields[name])
    for attribute, value in changes.items():
        setattr(field, attribute, value)
    return field


class Change(NamedTuple):
    """A value that replaces the one at a dotted key."""

    key: str
    value: Any
    where: str = "the settings"
    """Origin of the value, which an error in it names first."""


def load_config(
    model: type[ConfigT], file: str | os.PathLike[str] | None, overrides: Sequence[str] = ()
) -> ConfigT:
    """`model` from a YAML file (None: its defaults) with `a.b=value` overrides, each value read as YAML.

    Raises `UserError` naming the file and the key for a missing or malformed file, an unknown key (with the
    nearest known one) or a value out of range.
    """
    where = "the settings" if file is None else str(file)
    return changed_config(model, read_yaml(file), map(parsed_override, overrides), where)


def changed_config(
    model: type[ConfigT], values: dict[str, Any], changes: Iterable[Change], where: str
) -> ConfigT:
    """`model` from the values of a file with changes, the later ones winning; raises as `load_config` does."""
    origins = {}
    for change in changes:
        put(values, change.key, change.value, f"{change.where}: {change.key}")
        origins[change.key.partition(".")[0]] = change.where
    return parse_config(model, values, where, origins)


def parse_config(
    model: type[ConfigT], values: Mapping[str, Any], where: str, origins: Mapping[str, str] | None = None
) -> ConfigT:
    """`model` from its values; raises `UserError` as `load_config` does.

    where: what an error names first; origins: the same for single keys, where they come from elsewhere.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        where = (origins or {}).get(str(place[0]), where) if place else where
        raise UserError(f"{where}: {_sentence(model, error)}") from error


def put(values: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    """Set the value at a dotted key, whose parts are keys and, within a list, positions from 0 on: stages.0.crop.

    Raises `UserError`, which names `where` first, where a part leads into a value or past the end of a list.
    """
    held: Any = values
    *parents, last = dotted.split(".")
    for parent in parents:
        step = _step(held, parent, where)
        if isinstance(held, dict):
            held.setdefault(step, {})
        held = held[step]
        if not isinstance(held, dict | list):
            raise UserError(f"{where}: {parent} holds a value, not keys: leave out what follows it")
    held[_step(held, last, where)] = value


def _step(held: dict[str, Any] | list[Any], part: str, where: str) -> str | int:
    if isinstance(held, dict):
        return part
    if not re.fullmatch("[0-9]+", part) or int(part) >= len(held):
        raise UserError(f"{where}: {part!r} is not a position in a list of {len(held)}: count them from 0")
    return int(part)


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, for which a key that stands twice is an error and not the later value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key!r} stands twice: keep one", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(file: str | os.PathLike[str] | None) -> dict[str, Any]:
    """The values of a YAML file, not checked yet, none for None; raises `UserError` where there are none."""
    if file is None:
        return {}
    try:
        values = yaml.load(Path(file).read_text(encoding="utf-8"), _UniqueKeys)
    except OSError as error:
        raise UserError(f"can't read the config {file} ({error.strerror}): name a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{file} must hold 'key: value' lines, not a {type(values).__name__}")
    return values


def parsed_override(override: str) -> Change:
    """The change that `key=value` stands for; raises `UserError` where it is not of that form."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise UserError(f"{override!r} is not an override: write key=value, as in learning_rate=1e-4")
    try:
        return Change(dotted, yaml.load(text, _UniqueKeys))
    except yaml.constructor.ConstructorError as error:
        raise UserError(f"{override!r}: {error.problem}") from error
    except yaml.YAMLError as error:
        quoted = f"""'{dotted}=["my photos #1"]'"""
        raise UserError(
            f"{override!r}: the value is not valid YAML: put text that holds other signs in quotes, as in {quoted}"
        ) from error


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    """The first error in one sentence that names the key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown_key(model, ".".join(str(part) for part in first["loc"] if isinstance(part, str)))
    if first["type"] == "value_error":
        return f"{key + ': ' if key else ''}{first['ctx']['error']}"
    if first["type"] == "missing":
        return f"{key} is missing: give it a value"
    # YAML's lists become tuples, and the word tuple would mean nothing to somebody who writes YAML.
    reason = first["msg"].replace("a valid tuple", f"a list, as in {key}=[...]").replace("Tuple", "List")
    return f"{key} = {first['input']!r}: {reason[0].lower()}{reason[1:]}"


def unknown_key(model: type[BaseModel], key: str) -> str:
    """The sentence for a key that `model` does not have, with the nearest one that it has."""
    nearest = difflib.get_close_matches(key, _keys(model), n=1, cutoff=0.0)
    return f"unknown key {key!r}; the nearest known one is {nearest[0]!r}"


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of the model and of the models within it, dotted, without positions in lists."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        for inner in _models(field.annotation):
            keys += _keys(inner, f"{prefix}{name}.")
    return keys


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The settings models that a field's type is or holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def described_field(field: FieldInfo, *notes: str) -> str:
    """The help text of a setting on one line, with `notes`, its bounds and its default in brackets."""
    bounds = {
        name: getattr(bound, name)
        for name in _BOUNDS
        for bound in field.metadata
        if getattr(bound, name, None) is not None
    }
    if {"ge", "le"} <= bounds.keys():
        notes = (*notes, f"{bounds.pop('ge')} to {bounds.pop('le')}")
    notes = (*notes, *(f"{_BOUNDS[name]} {bound}" for name, bound in bounds.items()))
    if not field.is_required():
        notes = (*notes, f"default: {_flow_yaml(field.get_default(call_default_factory=True))}")
    return " ".join([*(field.description or "").split(), *(f"[{note}]" for note in notes)])


def described_settings(fields: Mapping[str, FieldInfo], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted key and description of each setting; `[]` stands for a position in a list."""
    rows = []
    for name, field in fields.items():
        inner = _models(field.annotation)
        is_model = inner == [field.annotation]
        if not is_model:
            rows.append((f"{prefix}{name}", described_field(field)))
        for model in inner:
            rows += described_settings(model.model_fields, f"{prefix}{name}{'' if is_model else '[]'}.")
    return rows


def to_yaml(settings: Config) -> str:
    """All settings as a YAML file that `load_config` reads back."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def to_overrides(settings: Config) -> list[str]:
    """The settings that are not the default as `key=value` words that `load_config` reads back."""
    values = settings.model_dump(mode="json", exclude_defaults=True)
    return [f"{key}={_flow_yaml(value)}" for key, value in values.items()]


def _flow_yaml(value: Any) -> str:
    """The value as YAML on one line."""
    style: dict[str, Any] = {"default_flow_style": True, "sort_keys": False, "width": math.inf}
    plain = yaml.safe_dump(to_jsonable_python(value), **style).removesuffix("...\n").strip()
    if "\n" not in plain:
        return plain
    # Only double quotes can hold a line break on one line.
    return yaml.safe_dump(to_jsonable_python(value), default_style='"', **style).strip()
