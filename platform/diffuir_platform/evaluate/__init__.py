"""Benchmarks of folders of pairs, their tables, and the demo."""

from .benchmark import RestoreFolder, evaluate
from .demo import Demo, demo
from .report import Report, Settings, terminal_table, write_report
from .restoring import restorer

__all__ = [
    "Demo",
    "Report",
    "RestoreFolder",
    "Settings",
    "demo",
    "evaluate",
    "restorer",
    "terminal_table",
    "write_report",
]
