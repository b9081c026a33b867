from .layout import ANY_TASK, INDEX_TASKS, UDC, Layout, Part, key_of
from .registry import LAYOUTS, describe_layouts, find_layout, with_names

__all__ = [
    "ANY_TASK",
    "INDEX_TASKS",
    "LAYOUTS",
    "UDC",
    "Layout",
    "Part",
    "describe_layouts",
    "find_layout",
    "key_of",
    "with_names",
]
