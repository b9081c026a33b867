"""Restoring collections of photos."""

from .job import restore
from .settings import RestoreOptions
from .summary import Status, Summary

__all__ = ["RestoreOptions", "Status", "Summary", "restore"]
