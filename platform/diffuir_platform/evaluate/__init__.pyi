from .benchmark import RestoreFolder, evaluate
from .demo import Demo, demo
from .folder_restorer import folder_restorer
from .pristine import FittedPristine, fit_pristine
from .report import Report, Settings, terminal_table, write_report

__all__ = [
    "Demo",
    "FittedPristine",
    "Report",
    "RestoreFolder",
    "Settings",
    "demo",
    "evaluate",
    "fit_pristine",
    "folder_restorer",
    "terminal_table",
    "write_report",
]
