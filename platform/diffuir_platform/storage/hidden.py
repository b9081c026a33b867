"""Files and folders that are never inputs: hidden ones, and those that programs keep for themselves."""

from __future__ import annotations

OWN_FOLDER = "_diffuir"
"""Where a restore keeps its ledger and report, inside its output."""

_OF_PROGRAMS = (OWN_FOLDER, "__MACOSX")


def is_hidden(path: str) -> bool:
    """Whether any part of `path` ("/" between parts) is hidden or a program's own folder."""
    return any(
        (part.startswith(".") and part not in (".", "..")) or part in _OF_PROGRAMS for part in path.split("/")
    )
