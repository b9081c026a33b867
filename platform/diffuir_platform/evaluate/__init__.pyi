from .benchmark import RestoreFolder, evaluate
from .demo import Demo, demo
from .folder_restorer import folder_restorer
from .report import Report, Settings, terminal_table, write_report

__all__ = [
    "Demo",
    "Report",
    "RestoreFolder",
    "Settings",
    "demo",
    "evaluate",
    "folder_restorer",
    "terminal_table",
    "write_report",
]
