"""MLflow: one run across restarts, logged through a spool on the disk, and the registry of trained weights."""

from .card import model_card
from .connection import sqlite_uri
from .provenance import GitState, code_state, git_state, submitted_state
from .registry import fetch_registered
from .tracker import Tracker, open_run
from .uploader import deliver

__all__ = [
    "GitState",
    "Tracker",
    "code_state",
    "deliver",
    "fetch_registered",
    "git_state",
    "model_card",
    "open_run",
    "sqlite_uri",
    "submitted_state",
]
