"""The processes that restore. What others know of them is light: no torch, which gateways do not load."""

from .interface import MODEL, Options, Restored, RestoreFailedError, units

__all__ = ["MODEL", "Options", "RestoreFailedError", "Restored", "units"]
