"""A tree of files for every layout, with traps in it, and the pairs that an index of it must hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .trees import SIZE, Files

Twins = tuple[str | None, str | None]
"""Degraded and clean path below ROOT, None for a side that is missing."""


@dataclass(frozen=True)
class Case:
    """A tree with traps in it, and what an index of it must hold, in order."""

    layout: str
    task: str
    files: Files
    found: dict[tuple[str, str], dict[str, Twins]]
    """(data set, split) -> key -> paths."""
    mismatched: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    root: str = "set"


def below(where: str, degraded: str, clean: str) -> Twins:
    """Return both paths below the folder `where`."""
    return f"{where}/{degraded}", f"{where}/{clean}"


def both(sides: str, name: str, *folders: str) -> list[str]:
    """Return the paths of `name` for each of `folders` and each of `sides`, which are separated by spaces."""
    return [f"{folder}/{side}/{name}" for folder in folders for side in sides.split()]


def scene(folder: str, *numbers: int) -> list[str]:
    """Return the paths of a scene of RealBlur."""
    return [f"{folder}/{side}/{side}_{n}.png" for side in ("gt", "blur") for n in numbers]


J = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref/scene001"
R = "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref/scene002"
SNOW_TRAIN, SNOW_TEST = "Snow100K-training/all", "Snow100K-testset/media/jdway/GameSSD/overlapping/test"

CASES = {
    "rain: names that sort otherwise than numbers, and other endings": Case(
        "rain13k",
        "rain",
        [
            *(f"train/input/{n}.jpg" for n in (1, 2, 10)),
            *("train/target/1.jpg", "train/target/2.png", "train/target/10.jpg"),
            *both("input target", "1.png", "test/Rain100L", "test/Rain12"),
            *both("input target", "901_1.jpg", "test/Test2800"),
        ],
        {
            ("Rain100L", "test"): {"1": below("test/Rain100L", "input/1.png", "target/1.png")},
            ("Rain13K", "train"): {
                "1": below("train", "input/1.jpg", "target/1.jpg"),
                "10": below("train", "input/10.jpg", "target/10.jpg"),
                "2": below("train", "input/2.jpg", "target/2.png"),
            },
            ("Test2800", "test"): {"901_1": below("test/Test2800", "input/901_1.jpg", "target/901_1.jpg")},
        },
    ),
    "rain: the first is missing on one side, the last on the other": Case(
        "rain13k",
        "rain",
        [*(f"Rain13K/input/{n}.png" for n in (2, 3, 4)), *(f"Rain13K/target/{n}.png" for n in (1, 2, 3))],
        {
            ("Rain13K", "train"): {
                n: below("Rain13K", f"input/{n}.png", f"target/{n}.png") for n in ("2", "3")
            }
        },
        ("Rain13K/input/4.png", "Rain13K/target/1.png"),
    ),
    "rain: ROOT is the set itself": Case(
        "rain13k",
        "rain",
        both("input target", "1.png", "train"),
        {("Rain13K", "train"): {"1": below("train", "input/1.png", "target/1.png")}},
        root="Rain13K",
    ),
    "rain: ROOT is a test set, which must not pass for training": Case(
        "rain13k",
        "rain",
        ["input/1.png", "target/1.png"],
        {("Test100", "test"): {"1": ("input/1.png", "target/1.png")}},
        root="Test100",
    ),
    "rain: real": Case(
        "practical",
        "rain",
        ["a/1.jpg", "a/1.png", "2.JPEG"],
        {("Practical", "test"): {name: (name, None) for name in ("2.JPEG", "a/1.jpg", "a/1.png")}},
    ),
    "low light: LOL": Case(
        "lol",
        "low_light",
        [*both("low high", "2.png", "our485", "eval15"), *both("low high", "10.png", "our485")],
        {
            ("LOL", "test"): {"2": below("eval15", "low/2.png", "high/2.png")},
            ("LOL", "train"): {n: below("our485", f"low/{n}.png", f"high/{n}.png") for n in ("10", "2")},
        },
    ),
    "low light: real": Case(
        "low-light-real",
        "low_light",
        ["MEF/a.png", "NPE/b.bmp", "DICM/01.jpg", "LIME/1.bmp", "VV/1.jpg"],
        {
            ("DICM", "test"): {"01.jpg": ("DICM/01.jpg", None)},
            ("LIME", "test"): {"1.bmp": ("LIME/1.bmp", None)},
            ("MEF", "test"): {"a.png": ("MEF/a.png", None)},
            ("NPE", "test"): {"b.bmp": ("NPE/b.bmp", None)},
        },
    ),
    "snow: masks, and the folders of its archives": Case(
        "snow100k",
        "snow",
        [
            *both("synthetic gt mask", "city_1.jpg", SNOW_TRAIN),
            *both("synthetic gt mask", "city_12.jpg", SNOW_TRAIN),
            *both("synthetic gt mask", "a.jpg", f"{SNOW_TEST}/Snow100K-S", f"{SNOW_TEST}/Snow100K-L"),
            "realistic/winter_1.jpg",
        ],
        {
            ("Snow100K", "train"): {
                name: below(SNOW_TRAIN, f"synthetic/{name}.jpg", f"gt/{name}.jpg")
                for name in ("city_1", "city_12")
            },
            ("Snow100K-L", "test"): {"a": below(f"{SNOW_TEST}/Snow100K-L", "synthetic/a.jpg", "gt/a.jpg")},
            ("Snow100K-S", "test"): {"a": below(f"{SNOW_TEST}/Snow100K-S", "synthetic/a.jpg", "gt/a.jpg")},
            ("Snow100K-real", "test"): {"winter_1.jpg": ("realistic/winter_1.jpg", None)},
        },
    ),
    "snow: with folders of other names": Case(
        "snow100k",
        "snow",
        both("synthetic gt", "a.jpg", "train", "test", "test/Snow100K-M"),
        {
            ("Snow100K", "test"): {"a": below("test", "synthetic/a.jpg", "gt/a.jpg")},
            ("Snow100K", "train"): {"a": below("train", "synthetic/a.jpg", "gt/a.jpg")},
            ("Snow100K-M", "test"): {"a": below("test/Snow100K-M", "synthetic/a.jpg", "gt/a.jpg")},
        },
    ),
    "haze: many of one, ids that begin alike, folders within": Case(
        "reside",
        "haze",
        [
            *(f"OTS/clear/{n}.jpg" for n in ("0001", "00010", "0002", "0003")),
            *(f"OTS/hazy/{n}.jpg" for n in ("0001_0.8_0.04", "0001_1_0.2", "00010_0.8_0.04", "000_1_0.1")),
            *("OTS/hazy/part2/0002_0.8_0.04.jpg", "SOTS/indoor/gt/1400.png", "SOTS/indoor/hazy/1400_1.png"),
            *("SOTS/outdoor/gt/0001.png", "SOTS/outdoor/hazy/0001_0.8_0.2.jpg"),
        ],
        {
            ("OTS", "train"): {
                "00010_0.8_0.04": below("OTS", "hazy/00010_0.8_0.04.jpg", "clear/00010.jpg"),
                "0001_0.8_0.04": below("OTS", "hazy/0001_0.8_0.04.jpg", "clear/0001.jpg"),
                "0001_1_0.2": below("OTS", "hazy/0001_1_0.2.jpg", "clear/0001.jpg"),
                "0002_0.8_0.04": below("OTS", "hazy/part2/0002_0.8_0.04.jpg", "clear/0002.jpg"),
            },
            ("SOTS-outdoor", "test"): {
                "0001_0.8_0.2": below("SOTS/outdoor", "hazy/0001_0.8_0.2.jpg", "gt/0001.png")
            },
        },
        ("OTS/clear/0003.jpg", "OTS/hazy/000_1_0.1.jpg"),
    ),
    "haze: the folders of its archive": Case(
        "reside",
        "haze",
        ["haze/OTS/0005_0.8_0.04.jpg", "clear/clear_images/0005.jpg", "depth/0005.png"],
        {("OTS", "train"): {"0005_0.8_0.04": ("haze/OTS/0005_0.8_0.04.jpg", "clear/clear_images/0005.jpg")}},
        root="OTS_ALPHA",
    ),
    "GoPro: the same numbers in two scenes, and a third side": Case(
        "gopro",
        "blur",
        both("blur sharp blur_gamma", "000047.png", "train/GOPR0372_07_00", "train/GOPR0372_07_01", "test/G"),
        {
            ("GoPro", "test"): {"G/000047": below("test/G", "blur/000047.png", "sharp/000047.png")},
            ("GoPro", "train"): {
                f"{name}/000047": below(f"train/{name}", "blur/000047.png", "sharp/000047.png")
                for name in ("GOPR0372_07_00", "GOPR0372_07_01")
            },
        },
    ),
    "GoPro: the other blur": Case(
        "gopro-gamma",
        "blur",
        both("blur sharp blur_gamma", "1.png", "test/G"),
        {("GoPro-gamma", "test"): {"G/1": below("test/G", "blur_gamma/1.png", "sharp/1.png")}},
    ),
    "HIDE: one folder of ground truth, dots in the names": Case(
        "hide",
        "blur",
        [
            *(f"GT/{n}fromGOPR1.MP4.png" for n in (1, 2, 3, 4)),
            *("test/test-close-ups/1fromGOPR1.MP4.png", "test/test-long-shot/2fromGOPR1.MP4.png"),
            "train/3fromGOPR1.MP4.png",
        ],
        {
            ("HIDE", "test"): {
                f"{view}/{n}fromGOPR1.MP4": (f"test/{view}/{n}fromGOPR1.MP4.png", f"GT/{n}fromGOPR1.MP4.png")
                for view, n in (("test-close-ups", 1), ("test-long-shot", 2))
            },
            ("HIDE", "train"): {"3fromGOPR1.MP4": ("train/3fromGOPR1.MP4.png", "GT/3fromGOPR1.MP4.png")},
        },
    ),
    "RealBlur: lists say what is for tests, and name one that is not there": Case(
        "realblur",
        "blur",
        dict.fromkeys([*scene(J, 1, 2, 10), *scene(R, 1)], SIZE)
        | {
            "RealBlur_J_test_list.txt": b"".join(
                f"{J}/gt/gt_{n}.png {J}/blur/blur_{n}.png \n".encode() for n in (10, 1, 3)
            )
        },
        {
            ("RealBlur-J", "test"): {
                f"scene001/{n}": below(J, f"blur/blur_{n}.png", f"gt/gt_{n}.png") for n in (1, 10)
            }
        },
        (f"{J}/blur/blur_3.png",),
    ),
    "RealBlur: all scenes": Case(
        "realblur-scenes",
        "blur",
        [*scene(J, 1, 2), *scene(R, 1)],
        {
            ("RealBlur-J", "all"): {
                f"scene001/{n}": below(J, f"blur/blur_{n}.png", f"gt/gt_{n}.png") for n in (1, 2)
            },
            ("RealBlur-R", "all"): {"scene002/1": below(R, "blur/blur_1.png", "gt/gt_1.png")},
        },
    ),
    "blur: all sets as input and target": Case(
        "deblur",
        "blur",
        both("input target", "a.png", "train", "test/GoPro", "test/HIDE", "test/RealBlur_J"),
        {
            ("GoPro", "test"): {"a": below("test/GoPro", "input/a.png", "target/a.png")},
            ("GoPro", "train"): {"a": below("train", "input/a.png", "target/a.png")},
            ("HIDE", "test"): {"a": below("test/HIDE", "input/a.png", "target/a.png")},
            ("RealBlur_J", "test"): {"a": below("test/RealBlur_J", "input/a.png", "target/a.png")},
        },
    ),
    "displays: folders": Case(
        "udc",
        "udc",
        both("LQ HQ", "1.png", "UDC_train/Train/Toled", "Poled_train"),
        {
            ("POLED", "train"): {"1": below("Poled_train", "LQ/1.png", "HQ/1.png")},
            ("TOLED", "train"): {"1": below("UDC_train/Train/Toled", "LQ/1.png", "HQ/1.png")},
        },
    ),
    "any pairs": Case(
        "pairs",
        "snow",
        [
            *("degraded/a/b.jpg", "degraded/b.jpg", "degraded/c.jpg", "degraded/c.png"),
            *("clean/a/b.png", "clean/b.jpg", "clean/b.png", "clean/c.png", "other/b.jpg"),
        ],
        {("set", "train"): {"a/b": ("degraded/a/b.jpg", "clean/a/b.png")}},
        # Nothing says which of two files with one key is the right one.
        ("degraded/b.jpg", "degraded/c.jpg", "degraded/c.png"),
        {"task": "snow"},
    ),
    "any degraded photos": Case(
        "unpaired",
        "haze",
        ["a.jpg", "b/c.png"],
        {("mine", "real"): {name: (name, None) for name in ("a.jpg", "b/c.png")}},
        options={"task": "haze", "dataset": "mine", "split": "real"},
    ),
    "any clean photos": Case(
        "clean",
        "any",
        ["a.jpg", "b/a.jpg", "a.png"],
        {("set", "train"): {name: (None, name) for name in ("a.jpg", "a.png", "b/a.jpg")}},
    ),
}
