"""Restoring collections of photos."""

from .job import RestoreOptions, restore
from .summary import Status, Summary

__all__ = ["RestoreOptions", "Status", "Summary", "restore"]
