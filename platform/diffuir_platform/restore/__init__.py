"""Restoring collections of photos."""

from typing import TYPE_CHECKING, Any

from .settings import RestoreOptions

if TYPE_CHECKING:
    from .run import restore
    from .summary import Summary

__all__ = ["RestoreOptions", "Summary", "restore"]


def __getattr__(name: str) -> Any:
    """A run and its summary, loaded when they are asked for: whoever needs the settings alone loads no ledger."""
    if name == "restore":
        from .run import restore

        return restore
    if name == "Summary":
        from .summary import Summary

        return Summary
    raise AttributeError(name)
