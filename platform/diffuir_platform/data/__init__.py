from .mixture import SHARES, Mixture, Slot, Stage, quotas
from .pairs import Pair, find_pairs, pairs_of
from .samples import Sample, UnusablePhoto, load_or_replace, load_slot
from .sources import DataConfig, Items, PairFolder, Source, describe, find_items, fingerprint, list_sources
from .stream import Share, shares_of_batches

__all__ = [
    "SHARES",
    "DataConfig",
    "Items",
    "Mixture",
    "Pair",
    "PairFolder",
    "Sample",
    "Share",
    "Slot",
    "Source",
    "Stage",
    "UnusablePhoto",
    "describe",
    "find_items",
    "find_pairs",
    "fingerprint",
    "list_sources",
    "load_or_replace",
    "load_slot",
    "pairs_of",
    "quotas",
    "shares_of_batches",
]
