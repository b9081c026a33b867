"""One way to configure: a typed model beside its owner, YAML for a run, `key=value` to override."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python

from diffuir_core import UserError

ConfigT = TypeVar("ConfigT", bound="Config")


class Config(BaseModel):
    """Base of every settings model: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def load_config(
    model: type[ConfigT], file: str | os.PathLike[str] | None, overrides: Sequence[str] = ()
) -> ConfigT:
    """`model` from a YAML file (None: its defaults) with `a.b=value` overrides, each value read as YAML.

    Raises `UserError` naming the file and the key for a missing or malformed file, an unknown key (with the
    nearest known one) or a value out of range.
    """
    values: dict[str, Any] = {} if file is None else _read_yaml(Path(file))
    for override in overrides:
        _set(values, override)
    return parse_config(model, values, "the settings" if file is None else str(file))


def parse_config(model: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    """`model` from its values; raises `UserError` as `load_config` does, `where` being what it names first."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {_sentence(model, error)}") from error


def put(values: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    """Set what stands at a dotted key, whose parts are keys and, within a list, places from 0 on: stages.0.crop.

    Raises `UserError`, `where` being what it names first, where a part leads into a value or to no place.
    """
    held: Any = values
    *parents, last = dotted.split(".")
    for parent in parents:
        step = _step(held, parent, where)
        if isinstance(held, dict):
            held.setdefault(step, {})
        held = held[step]
        if not isinstance(held, dict | list):
            raise UserError(f"{where}: {parent} holds a value, not keys")
    held[_step(held, last, where)] = value


def _step(held: dict[str, Any] | list[Any], part: str, where: str) -> str | int:
    if isinstance(held, dict):
        return part
    if not re.fullmatch("[0-9]+", part) or int(part) >= len(held):
        raise UserError(f"{where}: {part!r} is no place in a list of {len(held)}, which are counted from 0")
    return int(part)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        order = "; the config's file comes before the settings" if "=" in file.name else ""
        raise UserError(f"can't read the config {file}: {error.strerror}{order}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{file} must hold 'key: value' lines, not a {type(values).__name__}")
    return values


def _set(values: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise UserError(f"{override!r} is not an override: write key=value, as in learning_rate=1e-4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        quoted = f"""'{dotted}=["my photos #1"]'"""
        raise UserError(
            f"{override!r}: the value is not valid YAML: put text that holds other signs in quotes, as in {quoted}"
        ) from error
    put(values, dotted, value, repr(override))


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    """The first thing wrong, in one sentence that names the key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        key = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
        nearest = difflib.get_close_matches(key, _keys(model), n=1, cutoff=0.0)
        return f"unknown key {key!r}; the nearest known one is {nearest[0]!r}"
    if first["type"] == "value_error":
        return f"{key + ': ' if key else ''}{first['ctx']['error']}"
    if first["type"] == "missing":
        return f"{key} is missing: give it a value"
    # What is written as a list becomes a tuple, which nobody who writes YAML has heard of.
    reason = first["msg"].replace("a valid tuple", f"a list, as in {key}=[...]").replace("Tuple", "List")
    return f"{key} = {first['input']!r}: {reason[0].lower()}{reason[1:]}"


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of the model and of the models within it, dotted; places in a list have no part of their own."""
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


def describe_settings(model: type[BaseModel], prefix: str = "") -> str:
    """Every setting with its default and what it means, a line each."""
    lines = []
    for name, field in model.model_fields.items():
        inner = [m for m in _models(field.annotation) if field.annotation is m]
        if inner:
            lines.append(describe_settings(inner[0], f"{prefix}{name}."))
            continue
        default = (
            "" if field.is_required() else f" = {_as_yaml(field.get_default(call_default_factory=True))}"
        )
        lines.append(
            f"  {prefix}{name}{default}" + (f"\n      {field.description}" if field.description else "")
        )
        for element in _models(field.annotation):
            lines.append(describe_settings(element, f"{prefix}{name}[]."))
    return "\n".join(lines)


def _as_yaml(value: Any) -> str:
    text = yaml.safe_dump(to_jsonable_python(value), default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()
