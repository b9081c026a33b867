"""Layout of photos taken through a display (UDC): TOLED and POLED, as folders and as .mat files."""

from __future__ import annotations

from .layout import UDC, Layout, Part, paired_folders


def _display(name: str) -> tuple[Part, ...]:
    dataset, small = name.upper(), name.lower()
    spelling = f"({dataset}|{name}|{small})"
    as_folders = tuple(
        paired_folders(
            UDC, dataset, split, f"**/({spelling}_{split}|({split}|{split.title()})/{spelling})/", "LQ", "HQ"
        )
        for split in ("train", "val", "test")
    )
    as_arrays = tuple(
        Part(
            task=UDC,
            dataset=dataset,
            split=split,
            degraded=f"**/{small}_{split}_display",
            clean=f"**/{small}_{split}_gt",
            arrays=(f"{split}_display", f"{split}_gt"),
        )
        for split in ("val", "test")
    )
    return as_folders + as_arrays


DISPLAY = Layout(
    "udc",
    "TOLED and POLED: folders LQ/ and HQ/, and the .mat files of the challenge",
    _display("Toled") + _display("Poled"),
)
