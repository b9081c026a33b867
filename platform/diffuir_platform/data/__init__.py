from .mixture import SHARES, Mixture, Slot, Stage, quotas
from .pairs import Pair, find_pairs, pairs_of
from .samples import load_slot
from .sources import DataConfig, PairFolder, Source, describe, list_sources
from .stream import Share, shares_of_batches

__all__ = [
    "SHARES",
    "DataConfig",
    "Mixture",
    "Pair",
    "PairFolder",
    "Share",
    "Slot",
    "Source",
    "Stage",
    "describe",
    "find_pairs",
    "list_sources",
    "load_slot",
    "pairs_of",
    "quotas",
    "shares_of_batches",
]
