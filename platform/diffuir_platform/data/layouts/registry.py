"""The registry of all layouts, by name."""

from __future__ import annotations

from dataclasses import replace

from diffuir_core.errors import UserError

from .blur import DEBLUR, GOPRO, GOPRO_GAMMA, HIDE, REALBLUR, REALBLUR_SCENES
from .display import DISPLAY
from .generic import CLEAN, PAIRS, UNPAIRED
from .layout import ANY_TASK, INDEX_TASKS, Layout, Part
from .low_light import LOL, LOW_LIGHT_REAL
from .weather import PRACTICAL, RAIN13K, RESIDE, SNOW100K

LAYOUTS: tuple[Layout, ...] = (
    RAIN13K, PRACTICAL, SNOW100K, RESIDE, LOL, LOW_LIGHT_REAL, GOPRO, GOPRO_GAMMA, HIDE, REALBLUR, REALBLUR_SCENES,
    DEBLUR, DISPLAY, PAIRS, UNPAIRED, CLEAN,
)  # fmt: skip


def find_layout(name: str) -> Layout:
    """Return the layout of that name; raises `UserError` with all names where there is none."""
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise UserError(f"there is no layout {name!r}: choose among {', '.join(each.name for each in LAYOUTS)}")


def with_names(layout: Layout, task: str | None, dataset: str | None, split: str | None) -> Layout:
    """Return `layout` with the task, data set and split of the command; raises `UserError` where the layout lacks
    one or has its own.
    """
    if not layout.named_by_user:
        for option, value in (("task", task), ("dataset", dataset), ("split", split)):
            if value is not None:
                raise UserError(f"the layout {layout.name!r} sets its own {option}: leave out --{option}")
        return layout
    serves_any = layout.parts[0].task == ANY_TASK
    if serves_any and task is not None:
        raise UserError(f"photos of the layout {layout.name!r} serve any task: leave out --task")
    if not serves_any and task not in INDEX_TASKS:
        wrong = "needs --task: " if task is None else f"has no task {task!r}: "
        raise UserError(f"the layout {layout.name!r} {wrong}choose among {', '.join(INDEX_TASKS)}")
    parts = (
        replace(part, task=task or part.task, dataset=dataset or part.dataset, split=split or part.split)
        for part in layout.parts
    )
    return replace(layout, parts=tuple(parts))


def describe_layouts() -> str:
    """Return a list of all layouts and the places where each looks, for people."""
    lines = []
    for layout in LAYOUTS:
        lines += [f"  {layout.name}", f"      {layout.about}"]
        lines += dict.fromkeys(f"      {_place(part)}" for part in layout.parts)
    return "\n".join(lines)


def _place(part: Part) -> str:
    ending = ".mat" if part.arrays else ""
    where = " with ".join(template + ending for _, template in part.sides)
    what = ", ".join(filter(None, (part.dataset, part.split)))
    return f"{what}: {where}"
