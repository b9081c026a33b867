"""Where a run comes from: what its tags say."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import diffuir_core

SECONDS_FOR_GIT = 10

SUBMITTED = "DIFFUIR_GIT"
"""In the environment of a job: the state that its code was submitted in, as the job has no repository."""


@dataclass(frozen=True)
class GitState:
    """The state of a repository."""

    commit: str
    branch: str
    """Empty where none is checked out."""
    dirty: bool
    """Whether a file that git follows differs from the commit."""


def code_state() -> GitState | None:
    """The state of the repository that this code lies in, or that it was submitted from."""
    submitted = os.environ.get(SUBMITTED)
    if submitted:
        return GitState(**json.loads(submitted))
    return git_state(Path(diffuir_core.__file__).parent)


def submitted_state() -> dict[str, str]:
    """What a job that gets this code needs in its environment, to know its state."""
    state = code_state()
    return {} if state is None else {SUBMITTED: json.dumps(asdict(state))}


def git_state(folder: Path) -> GitState | None:
    """The state of the repository that follows files of `folder`; None where none does, without git, or before a
    commit."""
    # A package that is installed may lie in somebody's repository without being part of it.
    if not _git(folder, "ls-files"):
        return None
    lines = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    headers = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    commit, branch = headers.get("branch.oid", "(initial)"), headers.get("branch.head", "")
    if commit == "(initial)":
        return None
    return GitState(commit, "" if branch == "(detached)" else branch, any(line[:1] != "#" for line in lines))


def _git(folder: Path, *arguments: str) -> list[str]:
    """The lines that git answers in `folder`; none where it fails."""
    # Without the option a status may write the index, and so be in the way of a commit.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS_FOR_GIT,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [] if done.returncode else done.stdout.splitlines()


def provenance_tags(
    git: GitState | None, parent: str | None, index: str | None, data: str | None
) -> dict[str, str]:
    """The tags of a new run, under MLflow's own names where it has them.

    parent: the id of the run that this one belongs to. index: the fingerprints of the indexes of its data. data:
    the one of all that it is trained on.
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
    if data is not None:
        tags["diffuir.data"] = data
    return tags
