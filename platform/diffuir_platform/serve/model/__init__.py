"""The processes that hold the models. This room's door is light: gateways import it and load no torch."""

from .interface import MODEL, ModelOptions, Restored, RestoreFailedError, work_units

__all__ = ["MODEL", "ModelOptions", "RestoreFailedError", "Restored", "work_units"]
