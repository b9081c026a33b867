"""Provenance of a run: the commit of the code, the version, the parent run and the data, as MLflow's tags."""

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
"""Longest time of a git command, seconds."""

SUBMITTED = "DIFFUIR_GIT"
"""Variable in the environment of a job with the `GitState` of its code: the job has no repository to ask."""


@dataclass(frozen=True)
class GitState:
    """State of a git repository."""

    commit: str
    """Full hash of the commit that is checked out."""
    branch: str
    """Name of the branch; empty where none is checked out."""
    dirty: bool
    """Whether a tracked file differs from the commit."""


def code_state() -> GitState | None:
    """Return the state of the repository that holds this code, or that it was submitted from as a job."""
    submitted = os.environ.get(SUBMITTED)
    if submitted:
        return GitState(**json.loads(submitted))
    return git_state(Path(diffuir_core.__file__).parent)


def submitted_state() -> dict[str, str]:
    """Return the environment by which a job knows the state of its code."""
    state = code_state()
    return {} if state is None else {SUBMITTED: json.dumps(asdict(state))}


def git_state(folder: Path) -> GitState | None:
    """Return the state of the repository that tracks files of `folder`; None where there is none, without git, and
    before the first commit."""
    # An installed package may lie in somebody's repository without being part of it.
    if not _git(folder, "ls-files"):
        return None
    lines = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    headers = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    commit, branch = headers.get("branch.oid", "(initial)"), headers.get("branch.head", "")
    if commit == "(initial)":
        return None
    return GitState(commit, "" if branch == "(detached)" else branch, any(line[:1] != "#" for line in lines))


def _git(folder: Path, *arguments: str) -> list[str]:
    """Return the lines that a git command in `folder` prints; none where it fails."""
    # Without this a status may write the index, and a commit at the same time would fail.
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
    """Return the tags of a new run, under MLflow's own names where it has them.

    parent: id of the parent run. index: fingerprints of the indexes, separated by commas. data: fingerprint of all
    training data.
    """
    tags = {}
    if git is not None:
        tags["mlflow.source.git.commit"] = git.commit
        tags["mlflow.source.git.branch"] = git.branch
        tags["mlflow.source.git.dirty"] = str(git.dirty).lower()
    with suppress(PackageNotFoundError):  # not installed, but run from its sources
        tags["diffuir.version"] = version("diffuir")
    if parent is not None:
        tags["mlflow.parentRunId"] = parent
    if index is not None:
        tags["diffuir.index"] = index
    if data is not None:
        tags["diffuir.data"] = data
    return tags
