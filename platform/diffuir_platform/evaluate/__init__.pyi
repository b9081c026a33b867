from .demo import Demo, demo
from .evaluation import RestoreFolder, evaluate, evaluate_sets
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
    "evaluate_sets",
    "fit_pristine",
    "folder_restorer",
    "terminal_table",
    "write_report",
]
