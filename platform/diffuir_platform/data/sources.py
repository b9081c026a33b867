"""What a task is trained on: folders of clean photos degraded on the fly, and folders of real pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from diffuir_core import UserError
from diffuir_core.degradations import TASKS
from diffuir_core.imaging import FORMAT_OF_SUFFIX

from ..config import Config
from .pairs import images_in, pairs_of


class PairFolder(Config):
    """A folder with `degraded/` and `clean/`, the same file stem in both."""

    path: Path
    repeat: int = Field(default=1, ge=1)
    """How often each pair comes in an epoch of its task, beside the synthetic ones."""


class DataConfig(Config):
    """Where training images come from."""

    clean: tuple[Path, ...] = ()
    """Folders of clean photos; each photo is degraded on the fly for every task."""
    pairs: dict[str, tuple[PairFolder, ...]] = Field(default_factory=dict)
    """Real pairs by task, beside (or, without clean folders, instead of) the synthetic ones."""


@dataclass(frozen=True)
class Source:
    """One training item: a real pair, or with `degraded` None a clean photo to be degraded."""

    clean: str
    degraded: str | None = None


def list_sources(config: DataConfig) -> dict[str, list[Source]]:
    """Every task's items, in an order that depends on the file names alone.

    Raises `UserError` for a missing or empty folder, a pair without its twin, or a task left without items.
    """
    unknown = sorted(set(config.pairs) - set(TASKS))
    if unknown:
        raise UserError(f"data.pairs: no task {unknown[0]!r}: choose among {', '.join(TASKS)}")
    photos = [Source(str(file)) for folder in config.clean for file in list_images(folder)]
    sources = {}
    for task in TASKS:
        pairs = [
            Source(str(pair.clean), str(pair.degraded))
            for folder in config.pairs.get(task, ())
            for pair in pairs_of(folder.path.absolute()) * folder.repeat
        ]
        sources[task] = photos + pairs
        if not sources[task]:
            raise UserError(
                f"nothing to train {task} on: name a folder in data.clean or in data.pairs.{task}"
            )
    return sources


def list_images(folder: Path) -> list[Path]:
    """The image files in `folder` and below, sorted; raises `UserError` where there are none."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: name one that holds images")
    files = images_in(folder.absolute())
    if not files:
        raise UserError(f"the folder {folder} holds no images ({' '.join(FORMAT_OF_SUFFIX)})")
    return files


def describe(sources: Mapping[str, Sequence[Source]]) -> dict[str, dict[str, int]]:
    """Per task how many distinct clean photos and real pairs there are, for the record of a run."""
    return {
        task: {
            "photos": len({s for s in items if s.degraded is None}),
            "pairs": len({s for s in items if s.degraded is not None}),
        }
        for task, items in sources.items()
    }
