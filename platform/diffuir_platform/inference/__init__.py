"""Weights from a path, a URI or the registry, and the restoring of photos with them, for every room that does
so."""

from .photos import RestoresPixels, restore_each, with_restored
from .weights import FetchedWeights, fetch_weights, pinned

__all__ = ["FetchedWeights", "RestoresPixels", "fetch_weights", "pinned", "restore_each", "with_restored"]
