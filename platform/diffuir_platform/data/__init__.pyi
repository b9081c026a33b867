from .index import open_index
from .mixture import SHARES, Draws, Mixture, Slot, TrainingStage, quotas
from .overlap import check_apart
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
from .stream import LocalBatch, local_batches
from .versions import FileVersions, file_versions

__all__ = [
    "SHARES",
    "DataConfig",
    "Draws",
    "FileVersions",
    "Folder",
    "Items",
    "LocalBatch",
    "Mixture",
    "Pair",
    "PairFolder",
    "Sample",
    "Slot",
    "Source",
    "TrainingStage",
    "UnusablePhoto",
    "check_apart",
    "describe",
    "file_versions",
    "find_items",
    "find_pairs",
    "fingerprint",
    "list_sources",
    "load_or_replace",
    "load_slot",
    "local_batches",
    "open_index",
    "pairs_of",
    "preprocessing",
    "quotas",
    "read_whole",
]
