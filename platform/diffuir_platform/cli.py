"""The command line `diffuir`: a table of commands, each loaded when it is asked for, and their exit codes.

Exit codes: 0, all done; 1, done, but some inputs failed and are named; 2, it could not start or had to stop, with
one sentence why; 130, Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import click


class Entry(NamedTuple):
    """Where a command is defined, and its line in the list of commands."""

    module: str
    help: str


COMMANDS = {
    "restore": Entry(
        "restore.commands", "Restore a photo, or all photos of a collection, under the same relative paths."
    ),
    "train": Entry(
        "train.commands", "Train a model, or resume the run of that name from its last checkpoint."
    ),
    "sweep": Entry(
        "sweep.commands",
        "Train a model for every point of a grid, and make a table and a plot of what they reach.",
    ),
    "evaluate": Entry(
        "evaluate.commands", "Restore test pairs and print PSNR and SSIM before and after, per set."
    ),
    "index": Entry(
        "data.commands", "List a data set, match its pairs, and write an index to train and evaluate with."
    ),
    "serve": Entry("serve.commands", "Serve the API and a page to try it, until Ctrl-C."),
    "demo": Entry(
        "evaluate.commands", "Degrade bundled photos in five ways, restore them, and write a contact sheet."
    ),
}
"""The commands. A module defines `<name>_command`, whose help begins with the line that stands here."""


class _Commands(click.Group):
    """The group of COMMANDS: to list them, none of their modules is loaded."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS:
            raise click.UsageError(
                f"there is no command {cmd_name!r}: choose among {', '.join(COMMANDS)}", ctx
            )
        module = import_module(f".{COMMANDS[cmd_name].module}", __package__)
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="diffuir", prog_name="diffuir", message="%(prog)s %(version)s")
def app() -> None:
    """Train, run and serve DiffUIR: one model that removes rain, snow, haze, darkness and blur from photos."""


def main() -> None:
    """The console script."""
    sys.exit(exit_code_of(lambda: app(standalone_mode=False)))


def exit_code_of(command: Callable[[], int | None]) -> int | None:
    """Return what `command` returns; a mistake of the user becomes one sentence on stderr and exit code 2."""
    try:
        return command()
    except (KeyboardInterrupt, click.Abort):
        print("stopped: the same command goes on from there", file=sys.stderr)
        return 130
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        from diffuir_core.errors import UserError

        if not isinstance(error, UserError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


def _sentence(error: click.UsageError) -> str:
    """Return the error as one sentence, without the usage that click prints above it."""
    if isinstance(error, click.NoSuchOption):
        nearest = f"; the nearest known one is {error.possibilities[0]}" if error.possibilities else ""
        return f"unknown option {error.option_name}{nearest}"
    text = error.format_message().rstrip(".")
    return f"{text[0].lower()}{text[1:]}"


if __name__ == "__main__":
    main()
