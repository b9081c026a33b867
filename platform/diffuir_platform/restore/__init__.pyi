from .run import restore
from .settings import RestoreOptions
from .summary import Summary

__all__ = ["RestoreOptions", "Summary", "restore"]
