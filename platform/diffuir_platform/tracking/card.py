"""Model cards: the recipe and the metrics of trained weights in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..text import markdown_table
from .params import flattened
from .provenance import GitState


def model_card(
    title: str,
    recipe: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, float]] | None = None,
    git: GitState | None = None,
) -> str:
    """Return a model card in Markdown from the recipe in the header of a weights file.

    recipe: `settings`, `data` (task -> counts), and whatever else was recorded. figures: metrics of the
    validation, data set -> metric -> value. git: state of the code that trained them.
    """
    others = {key: value for key, value in recipe.items() if key not in ("settings", "data")}
    parts = [f"# {title}"]
    if figures:
        parts += ["## Validation", _table_of_rows("set", figures)]
    if recipe.get("data"):
        parts += ["## Data", _table_of_rows("task", recipe["data"])]
    settings = sorted(flattened(recipe.get("settings", {})).items())
    parts += ["## Settings", markdown_table(("setting", "value"), settings)]
    if others:
        parts += ["## Recorded with them", markdown_table(("what", "value"), flattened(others).items())]
    parts += ["## Code", _code(git)]
    return "\n\n".join(parts) + "\n"


def _code(git: GitState | None) -> str:
    if git is None:
        return "Not from a git repository."
    changed = ", with changes that are not committed" if git.dirty else ""
    return f"Commit {git.commit}{f' of {git.branch}' if git.branch else ''}{changed}."


def _table_of_rows(first: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A table with a row for each key, titled `first`, and a column for each name in any of the rows."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = ((key, *(row.get(c, "") for c in columns)) for key, row in rows.items())
    return markdown_table((first, *columns), cells)
