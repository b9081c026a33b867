from .index import open_index
from .mixture import SHARES, Mixture, Slot, Stage, quotas
from .pairs import Pair, find_pairs, pairs_of
from .samples import Sample, UnusablePhoto, load_or_replace, load_slot, read_whole
from .sources import (
    DataConfig,
    Folder,
    Items,
    PairFolder,
    Source,
    describe,
    find_items,
    fingerprint,
    list_sources,
    preprocessing,
)
from .stream import Share, shares_of_batches

__all__ = [
    "SHARES",
    "DataConfig",
    "Folder",
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
    "open_index",
    "pairs_of",
    "preprocessing",
    "quotas",
    "read_whole",
    "shares_of_batches",
]
