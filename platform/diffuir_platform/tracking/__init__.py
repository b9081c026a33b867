"""MLflow: one run across restarts, told to a tracker that may be away, and a registry of what was trained."""

from .card import model_card
from .connection import sqlite_uri
from .courier import deliver
from .provenance import GitState, code_state, git_state, submitted_state
from .registry import fetch_registered
from .tracker import Tracker, open_run

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
