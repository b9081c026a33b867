"""Where a run comes from: what its tags say."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SECONDS_FOR_GIT = 10


@dataclass(frozen=True)
class GitState:
    """The state of a repository."""

    commit: str
    branch: str
    """Empty where none is checked out."""
    dirty: bool
    """Whether a file that git follows differs from the commit."""


def git_state(folder: Path) -> GitState | None:
    """The state of the repository that `folder` lies in; None outside of one, without git, or before a commit."""
    command = ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    # Without the option a status may write the index, and so be in the way of a commit.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS_FOR_GIT,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    headers = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    commit, branch = headers.get("branch.oid", "(initial)"), headers.get("branch.head", "")
    if done.returncode or commit == "(initial)":
        return None
    return GitState(commit, "" if branch == "(detached)" else branch, any(line[:1] != "#" for line in lines))


def provenance_tags(git: GitState | None, parent: str | None, index: str | None) -> dict[str, str]:
    """The tags of a new run, under MLflow's own names where it has them.

    parent: the id of the run that this one belongs to. index: the fingerprint of the data's index.
    """
    tags = {}
    if git is not None:
        tags["mlflow.source.git.commit"] = git.commit
        tags["mlflow.source.git.branch"] = git.branch
        tags["mlflow.source.git.dirty"] = str(git.dirty).lower()
    with suppress(PackageNotFoundError):  # run from its sources
        tags["diffuir.version"] = version("diffuir")
    if parent is not None:
        tags["mlflow.parentRunId"] = parent
    if index is not None:
        tags["diffuir.index"] = index
    return tags
