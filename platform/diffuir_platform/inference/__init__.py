"""Restorers by name, weights from a path, a URI or the registry, and photos through them, for every room that
restores."""

from .photos import RestoresPixels, restore_each, with_restored
from .restorers import (
    SETTINGS_OF_DIFFUIR,
    NamedRestorer,
    RestorerName,
    fetch_model,
    load_restorer,
    pinned_restorer,
    recorded,
)
from .weights import FetchedWeights, fetch_file, fetch_weights, pinned

__all__ = [
    "SETTINGS_OF_DIFFUIR",
    "FetchedWeights",
    "NamedRestorer",
    "RestorerName",
    "RestoresPixels",
    "fetch_file",
    "fetch_model",
    "fetch_weights",
    "load_restorer",
    "pinned",
    "pinned_restorer",
    "recorded",
    "restore_each",
    "with_restored",
]
