"""The benchmarks of the paper by name: where each lies on disk, how it is restored, and what is reported of it.

The paper's text names 20 test sets, and LIME beside them in one list of its field, and counts 22.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffuir_core.errors import UserError

from .measures import Measure, blind, fidelity

TEST = "test"
"""Split of the layouts that the benchmarks are."""
STEPS = 3
"""Sampling steps of all benchmarks but those of displays (section 4.2)."""
STEPS_OF_DISPLAYS = 4
"""Sampling steps of the published code on TOLED and POLED."""
SIDE_OF_DISPLAYS = 1024
"""Width of the pieces in which the published code restores the photos of displays, 2048 pixels wide."""

IN_Y = fidelity("released-y", "matlab-y")
DEBLURRING = fidelity("released-y", "rgb")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One test set of the paper."""

    name: str
    task: str
    """Task of its degradation, a name of `data.layouts.INDEX_TASKS`."""
    places: tuple[tuple[str, str], ...]
    """(layout, data set) under which `diffuir index` knows it; the first that is there is taken."""
    measures: tuple[Measure, ...]
    """Everything that is reported of it; the protocol of the paper's own figures comes first."""
    images: int | None = None
    """Number of its images as the paper gives it; None where it gives none."""
    steps: int = STEPS
    equalise: bool = False
    """Whether the published weights expect its histograms equalised (section 4.2)."""
    piece: int | None = None
    """Width, in pixels, of the pieces that its photos are restored in; None for whole photos."""
    split: str = TEST

    def describe(self) -> str:
        """Return its conditions on one line."""
        layouts = dict.fromkeys(layout for layout, _ in self.places)
        parts = [f"layout {' or '.join(layouts)}", f"{self.steps} steps", *["equalised"] * self.equalise]
        parts += [] if self.piece is None else [f"in pieces {self.piece} pixels wide"]
        metrics: dict[str, list[str]] = {}
        for measure in self.measures:
            metrics.setdefault(measure.metric.upper(), []).append(measure.protocol)
        return "; ".join([", ".join(parts), *(f"{name} by {', '.join(by)}" for name, by in metrics.items())])


def _rain(name: str, images: int) -> Benchmark:
    places = (("rain13k", name),)
    return Benchmark(name=name, task="rain", places=places, measures=IN_Y, images=images)


def _dark(name: str) -> Benchmark:
    return Benchmark(
        name=name,
        task="low_light",
        places=(("low-light-real", name),),
        measures=blind("niqe", "loe"),
        equalise=True,
    )


def _snow(name: str) -> Benchmark:
    return Benchmark(name=name, task="snow", places=(("snow100k", name),), measures=fidelity("released-y"))


def _blurred(name: str, images: int, *places: tuple[str, str]) -> Benchmark:
    return Benchmark(name=name, task="blur", places=places, measures=DEBLURRING, images=images)


def _display(name: str) -> Benchmark:
    return Benchmark(
        name=name,
        task="udc",
        places=(("udc", name),),
        measures=(*fidelity("rgb-3d"), Measure("lpips", "vgg-01")),
        steps=STEPS_OF_DISPLAYS,
        piece=SIDE_OF_DISPLAYS,
    )


BENCHMARKS: tuple[Benchmark, ...] = (
    _rain("Test100", 98),
    _rain("Rain100H", 100),
    _rain("Rain100L", 100),
    _rain("Test2800", 2800),
    _rain("Test1200", 1200),
    Benchmark(
        name="Practical",
        task="rain",
        places=(("practical", "Practical"),),
        measures=blind("niqe", "loe"),
    ),
    Benchmark(
        name="LOL",
        task="low_light",
        places=(("lol", "LOL"),),
        measures=fidelity("released-y"),
        images=15,
        equalise=True,
    ),
    *(_dark(name) for name in ("MEF", "NPE", "DICM", "LIME")),
    _snow("Snow100K-S"),
    _snow("Snow100K-L"),
    Benchmark(
        name="Snow100K-realistic",
        task="snow",
        places=(("snow100k", "Snow100K-real"),),
        measures=blind("niqe", "il-niqe"),
        images=1329,
    ),
    Benchmark(
        name="SOTS-outdoor",
        task="haze",
        places=(("reside", "SOTS-outdoor"),),
        measures=IN_Y,
        images=500,
    ),
    _blurred("GoPro", 1111, ("gopro", "GoPro"), ("deblur", "GoPro")),
    _blurred("HIDE", 2025, ("hide", "HIDE"), ("deblur", "HIDE")),
    _blurred("RealBlur-J", 980, ("realblur", "RealBlur-J"), ("deblur", "RealBlur_J")),
    _blurred("RealBlur-R", 980, ("realblur", "RealBlur-R"), ("deblur", "RealBlur_R")),
    _display("TOLED"),
    _display("POLED"),
)
"""All benchmarks. The five sets of rain have 4298 images in the paper: 98, 100, 100, 2800 and 1200."""

GROUPS: dict[str, tuple[str, ...]] = {
    "all": tuple(benchmark.name for benchmark in BENCHMARKS),
    "table-1": (
        *("Test100", "Rain100H", "Rain100L", "Test2800", "Test1200"),
        *("LOL", "Snow100K-S", "Snow100K-L", "SOTS-outdoor", "GoPro"),
    ),
    "table-4": ("TOLED", "POLED"),
    "table-5": (
        *("Practical", "MEF", "NPE", "DICM", "Snow100K-realistic", "HIDE", "RealBlur-J", "RealBlur-R"),
    ),
}
"""Names for several benchmarks: all, and those of a table of the paper."""


def find_benchmarks(names: str) -> list[Benchmark]:
    """Return the benchmarks of names and groups, separated by commas in any case, in the order of BENCHMARKS.

    Raises `UserError` for a name that is none.
    """
    known = GROUPS | {benchmark.name.lower(): (benchmark.name,) for benchmark in BENCHMARKS}
    wanted: set[str] = set()
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name.lower() not in known:
            raise UserError(f"there is no benchmark {name!r}: choose among {', '.join(all_names())}")
        wanted.update(known[name.lower()])
    if not wanted:
        raise UserError(f"--benchmark names none: choose among {', '.join(all_names())}")
    return [benchmark for benchmark in BENCHMARKS if benchmark.name in wanted]


def all_names() -> Sequence[str]:
    """Return the names that `find_benchmarks` knows."""
    return [*GROUPS, *GROUPS["all"]]


def by_name(name: str) -> Benchmark | None:
    """Return the benchmark that a set is; None for a set of one's own."""
    return next((benchmark for benchmark in BENCHMARKS if benchmark.name == name), None)
