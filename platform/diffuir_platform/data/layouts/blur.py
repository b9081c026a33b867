"""Layouts of motion blur."""

from __future__ import annotations

from .layout import Layout, Part, paired_folders

DEBLUR_TESTS = ("GoPro", "HIDE", "RealBlur_J", "RealBlur_R")


def _gopro(dataset: str, blurred: str) -> tuple[Part, ...]:
    return tuple(
        Part(
            task="blur",
            dataset=dataset,
            split=split,
            degraded=f"{split}/{{scene}}/{blurred}/{{name}}",
            clean=f"{split}/{{scene}}/sharp/{{name}}",
        )
        for split in ("train", "test")
    )


GOPRO = Layout("gopro", "GoPro (GOPRO_Large), its folders blur/", _gopro("GoPro", "blur"))
GOPRO_GAMMA = Layout("gopro-gamma", "GoPro, its folders blur_gamma/", _gopro("GoPro-gamma", "blur_gamma"))


def last_part(key: str) -> str:
    """Return the last part of a key, test-close-ups/7 -> 7: several degraded folders share one clean folder."""
    return key.rpartition("/")[2]


def _hide(split: str, blurred: str) -> Part:
    return Part(
        task="blur",
        dataset="HIDE",
        split=split,
        degraded=blurred,
        clean="GT/{name}",
        twin=last_part,
        spare_clean=True,
    )


HIDE = Layout(
    "hide",
    "HIDE, with the ground truth of both splits in one folder",
    (_hide("train", "train/{name}"), _hide("test", "(test/)?{view=test-close-ups|test-long-shot}/{name}")),
)


def _realblur(camera: str, split: str, listing: str | None) -> Part:
    return Part(
        task="blur",
        dataset=f"RealBlur-{camera}",
        split=split,
        degraded=f"RealBlur-{camera}*/{{scene}}/blur/blur_{{name}}",
        clean=f"RealBlur-{camera}*/{{scene}}/gt/gt_{{name}}",
        spare_clean=listing is not None,
        listing=listing,
    )


REALBLUR = Layout(
    "realblur",
    "RealBlur-J and -R, split by RealBlur_J_test_list.txt and the other lists in ROOT",
    tuple(
        _realblur(camera, split, f"RealBlur_{camera}_{split}_list.txt")
        for camera in "JR"
        for split in ("train", "test")
    ),
)
REALBLUR_SCENES = Layout(
    "realblur-scenes",
    "RealBlur-J and -R without those lists, all scenes as one split",
    tuple(_realblur(camera, "all", None) for camera in "JR"),
)

DEBLUR = Layout(
    "deblur",
    "GoPro and the four test sets of deblurring as input/ and target/ (the release of MPRNet)",
    (
        paired_folders("blur", "GoPro", "train", "train/(GoPro/)?", "input", "target"),
        *(
            paired_folders("blur", name, "test", f"(test/)?{name}/", "input", "target")
            for name in DEBLUR_TESTS
        ),
    ),
)
