"""Files and folders that are never inputs: hidden ones, and those where programs keep their own data."""

from __future__ import annotations

OWN_FOLDER = "_diffuir"
"""Name of the folder inside an output where a restore keeps its ledger and report."""

_PROGRAM_FOLDERS = (OWN_FOLDER, "__MACOSX")


def is_hidden(path: str) -> bool:
    """Whether any part of `path`, separated by "/", is hidden or a program's own folder."""
    return any(
        (part.startswith(".") and part not in (".", "..")) or part in _PROGRAM_FOLDERS
        for part in path.split("/")
    )
