"""Benchmarks of folders of pairs, their tables, and the demo."""

from diffuir_platform.evaluate.benchmark import RestoreFolder, evaluate
from diffuir_platform.evaluate.demo import Demo, demo
from diffuir_platform.evaluate.report import Report, Settings, terminal_table, write_report
from diffuir_platform.evaluate.restoring import restorer

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
