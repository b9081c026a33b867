"""What restores photos, wherever it runs: weights from a path, a URI or the registry, and a restorer of them."""

from .photos import RestoresPixels, restore_each, with_restored
from .weights import FetchedWeights, fetch_weights, pinned

__all__ = ["FetchedWeights", "RestoresPixels", "fetch_weights", "pinned", "restore_each", "with_restored"]
