"""The commands of `diffuir`, each loaded when it is asked for."""

from __future__ import annotations

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
        "evaluate.commands",
        "Restore test pairs or benchmarks, and measure them before and after; or compare two evaluations.",
    ),
    "fit-niqe": Entry(
        "evaluate.commands", "Fit the statistics that NIQE or IL-NIQE compares with to pristine photos."
    ),
    "index": Entry(
        "data.commands", "List a data set, match its pairs, and write an index to train and evaluate with."
    ),
    "analyse": Entry(
        "analysis.commands", "Make a table or a picture of the paper from a finished sweep, pairs or a photo."
    ),
    "serve": Entry("serve.commands", "Serve the API and a page to try it, until Ctrl-C."),
    "demo": Entry(
        "evaluate.commands", "Degrade bundled photos in five ways, restore them, and write a contact sheet."
    ),
}
"""The commands. A module defines `<name>_command`, with _ for -; its help begins with the line here."""


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
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
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
