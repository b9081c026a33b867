"""The card of a model: what it was made from and what it reaches, for people, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .params import flattened
from .provenance import GitState


def model_card(
    title: str,
    recipe: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, float]] | None = None,
    git: GitState | None = None,
) -> str:
    """Markdown from what the weights' header holds of their training.

    recipe: `settings`, `data` (task -> counts), and whatever else was recorded. figures: of the validation,
    data set -> metric -> value.
    """
    others = {key: value for key, value in recipe.items() if key not in ("settings", "data")}
    parts = [f"# {title}"]
    if figures:
        parts += ["## Validation", _sets("set", figures)]
    if recipe.get("data"):
        parts += ["## Data", _sets("task", recipe["data"])]
    parts += [
        "## Settings",
        _table(("setting", "value"), sorted(flattened(recipe.get("settings", {})).items())),
    ]
    if others:
        parts += ["## Recorded with them", _table(("what", "value"), flattened(others).items())]
    parts += ["## Code", _code(git)]
    return "\n\n".join(parts) + "\n"


def _code(git: GitState | None) -> str:
    if git is None:
        return "Not from a git repository."
    changed = ", with changes that are not committed" if git.dirty else ""
    return f"Commit {git.commit}{f' of {git.branch}' if git.branch else ''}{changed}."


def _sets(what: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each key, a column for each name that any of them has."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    return _table((what, *columns), ((key, *(row.get(c, "") for c in columns)) for key, row in rows.items()))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
