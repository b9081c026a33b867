from .mixture import SHARES, Mixture, Slot, Stage, quotas
from .samples import load_slot
from .sources import DataConfig, PairFolder, Source, describe, list_images, list_pairs, list_sources
from .stream import Share, shares_of_batches

__all__ = [
    "SHARES",
    "DataConfig",
    "Mixture",
    "PairFolder",
    "Share",
    "Slot",
    "Source",
    "Stage",
    "describe",
    "list_images",
    "list_pairs",
    "list_sources",
    "load_slot",
    "quotas",
    "shares_of_batches",
]
