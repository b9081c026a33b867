"""Commands made from settings models: each setting is an option, a `key=value` word and a key of a YAML file.

The option of `gpu_share` is --gpu-share, and its help text is the field's docstring. Settings with parts, such as
`ema.decay`, have no option. Later ones win: defaults, the file, `key=value`, then options and arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic.fields import FieldInfo

from diffuir_core import UserError

from .config import (
    Change,
    Config,
    changed_config,
    described_field,
    described_settings,
    parse_config,
    parsed_override,
    read_yaml,
    to_yaml,
    unknown_key,
)

_PLACEHOLDERS: dict[Any, str] = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}
_LIKE_A_SETTING = re.compile(r"([A-Za-z_][\w.]*)=")
_KEY_VALUE = (
    "KEY=VALUE",
    "A setting by its key, which is the option's name with _ for -, and its value in YAML.",
)


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """An option for a setting that would have none."""

    key: str
    """Dotted key of the setting."""
    help: str
    """Help text of the option."""
    value: Callable[[str], Any] = str
    """Makes the value of the setting from the text of the option."""


class SettingsCommand(click.Command):
    """A command that calls `run` with its settings, and with its modes where it has any.

    run: returns the exit code; its docstring is the command's help. model: the settings. arguments: settings given
    by position instead of by an option, name -> placeholder. takes_file: whether the first argument is the file of
    --config. modes: options that are neither keys of the file nor `key=value` words. shortcuts: further options,
    by name. printed: makes the text of --print-config; printed_name: what the help calls it. epilog: makes the
    text at the end of the help.
    """

    def __init__(
        self,
        run: Callable[..., int],
        model: type[Config],
        *,
        arguments: Mapping[str, str] | None = None,
        takes_file: bool = False,
        modes: type[Config] | None = None,
        shortcuts: Mapping[str, Shortcut] | None = None,
        printed: Callable[[Any], str] = to_yaml,
        printed_name: str = "the settings as a file that --config takes",
        epilog: Callable[[], str] | None = None,
    ) -> None:
        self._run, self.model, self.modes = run, model, modes
        self.arguments, self._takes_file = arguments or {}, takes_file
        self._shortcuts, self._printed, self._end_of_help = shortcuts or {}, printed, epilog
        self._placeholders = [*["CONFIG"] * takes_file, *self.arguments.values(), "KEY=VALUE"]
        super().__init__(
            name=None,
            help=run.__doc__,
            callback=self._call,
            params=[
                click.Argument(
                    ["words"],
                    nargs=-1,
                    metavar=" ".join(f"[{name}]" for name in self._placeholders) + "...",
                    type=click.UNPROCESSED,
                ),
                *_options(self._fields(with_option=True), can_be_unset=True),
                *(
                    click.Option([name, f"--{name}"], metavar="TEXT", help=shortcut.help)
                    for name, shortcut in self._shortcuts.items()
                ),
                *_options(modes.model_fields if modes else {}, can_be_unset=False),
                click.Option(
                    ["config", "--config"],
                    metavar="FILE",
                    help="YAML file of settings, each under its key; KEY=VALUE and options replace what it says.",
                ),
                click.Option(
                    ["print_config", "--print-config"],
                    is_flag=True,
                    help=f"Print {printed_name}, and do nothing else.",
                ),
            ],
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write arguments, options, settings without an option, and the end of the help."""
        rows = [("CONFIG", "The file of --config.")] if self._takes_file else []
        rows += [
            (placeholder, described_field(self.model.model_fields[name]))
            for name, placeholder in self.arguments.items()
        ]
        with formatter.section("Arguments"):
            formatter.write_dl([*rows, _KEY_VALUE])
        super().format_options(ctx, formatter)
        if without := described_settings(self._fields(with_option=False)):
            with formatter.section("Settings without an option, in FILE or as KEY=VALUE"):
                formatter.write_dl(without)
        if self._end_of_help is not None:
            formatter.write(f"\n{self._end_of_help()}\n")

    def _fields(self, with_option: bool) -> dict[str, FieldInfo]:
        fields = {n: f for n, f in self.model.model_fields.items() if n not in self.arguments}
        return {n: f for n, f in fields.items() if (_value_type(f.annotation) is not None) is with_option}

    def _call(self, words: Sequence[str], config: str | None, print_config: bool, **options: Any) -> int:
        source = click.get_current_context().get_parameter_source
        options = {n: value for n, value in options.items() if source(n) is ParameterSource.COMMANDLINE}
        overrides = [parsed_override(word) for word in words if self._is_setting(word)]
        arguments = [word for word in words if not self._is_setting(word)]
        if self._takes_file and config is None and arguments:
            self._check_no_setting(arguments[0])
            config = arguments.pop(0)
        values = read_yaml(config)
        changes = [*overrides, *self._changes(options), *self._positional(arguments, values, overrides)]
        self._check_complete({*values, *(change.key.partition(".")[0] for change in changes)})
        settings = changed_config(self.model, values, changes, config or "the settings")
        more = []
        if self.modes is not None:
            modes = {name: options[name] for name in self.modes.model_fields if name in options}
            more = [parse_config(self.modes, modes, "the options")]
        if print_config:
            click.echo(self._printed(settings), nl=False)
            return 0
        return self._run(settings, *more)

    def _is_setting(self, word: str) -> bool:
        """Whether a word is `key=value` of a known key, or of one below it; others are arguments: photo=1.jpg."""
        key, equals, _ = word.partition("=")
        return bool(equals) and key.partition(".")[0] in self.model.model_fields

    def _changes(self, options: Mapping[str, Any]) -> Iterator[Change]:
        for name, value in options.items():
            if name in self.model.model_fields:
                yield Change(name, value, "the options")
            elif name in self._shortcuts:
                shortcut = self._shortcuts[name]
                yield Change(shortcut.key, shortcut.value(value), "the options")

    def _positional(
        self, words: Sequence[str], values: Mapping[str, Any], overrides: Sequence[Change]
    ) -> Iterator[Change]:
        """The settings given by position; raises `UserError` for a word too many and a setting given twice."""
        for word, name in zip_longest(words, self.arguments):
            if word is None:
                return
            if name is None or name in values:  # there is no need for another argument
                self._check_no_setting(word)
            if name is None:
                known = ", ".join(self._placeholders)
                raise UserError(f"{word!r} is one argument too many: the command takes {known} and options")
            if name in (change.key for change in overrides):
                raise UserError(
                    f"{name} is given twice, as {self.arguments[name]} and as {name}=: leave one out"
                )
            yield Change(name, word, "the options")

    def _check_no_setting(self, word: str) -> None:
        """Raise `UserError` for a word that looks like a setting and is not a file."""
        if (found := _LIKE_A_SETTING.match(word)) and not os.path.exists(word):
            raise UserError(unknown_key(self.model, found[1]))

    def _check_complete(self, given: set[str]) -> None:
        for name, field in self.model.model_fields.items():
            if field.is_required() and name not in given:
                has_option = name not in self.arguments and _value_type(field.annotation) is not None
                shown = _flag(name) if has_option else self.arguments.get(name, name)
                raise UserError(
                    f"{shown} is missing: give it here, as {name}=VALUE, or in the file of --config"
                )


def _options(fields: Mapping[str, FieldInfo], can_be_unset: bool) -> Iterator[click.Option]:
    """An option for each field; can_be_unset: whether a flag has a counterpart --no-..., as a file may set it."""
    for name, field in fields.items():
        value_type, flag = _value_type(field.annotation), _flag(name)
        if value_type is bool:
            flags = f"{flag}/--no-{flag[2:]}" if can_be_unset else flag
            help = described_field(field) if can_be_unset else field.description
            yield click.Option([name, flags], is_flag=True, default=None, help=help)
            continue
        is_list = get_origin(_without_none(field.annotation)) is tuple
        is_choice = get_origin(value_type) is Literal
        yield click.Option(
            [name, flag],
            type=click.UNPROCESSED,  # the model checks values, wherever they come from
            multiple=is_list,
            metavar=f"[{'|'.join(get_args(value_type))}]" if is_choice else _PLACEHOLDERS[value_type],
            help=described_field(field, *["may be repeated"] * is_list),
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _value_type(annotation: Any) -> Any:
    """The type that an option's text is read as; None for a setting with parts, which has no option.

    bool, int, float, str, Path or a Literal, of a field that holds one, one or null, or a tuple of any length.
    """
    annotation = _without_none(annotation)
    if get_origin(annotation) is tuple and get_args(annotation)[1:] == (...,):
        annotation = get_args(annotation)[0]
    is_value = annotation is bool or annotation in _PLACEHOLDERS or get_origin(annotation) is Literal
    return annotation if is_value else None


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    members = [member for member in get_args(annotation) if member is not NoneType]
    return members[0] if len(members) == 1 else annotation
