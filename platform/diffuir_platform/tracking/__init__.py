"""MLflow: one run across restarts, told to a tracker that may be away, and a registry of what was trained."""

from .card import model_card
from .courier import deliver
from .provenance import GitState, git_state
from .registry import fetch_registered
from .tracker import Tracker, open_run

__all__ = ["GitState", "Tracker", "deliver", "fetch_registered", "git_state", "model_card", "open_run"]
