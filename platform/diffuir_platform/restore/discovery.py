"""What is to be restored, and where each result goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from diffuir_core.errors import UserError
from diffuir_core.files import temporary_name
from diffuir_core.imaging import FORMAT_OF_SUFFIX

OWN_FOLDER = "_diffuir"
"""Where a batch job keeps its own records inside an output; never an input."""


@dataclass(frozen=True)
class Item:
    """One photo: its key (the path below IN, with `/`), where it lies, and where its result goes."""

    key: str
    source: str
    target: str
    format: str | None = None
    """The format to write, one of `diffuir_core.imaging.FORMATS`; None keeps the photo's own."""


@dataclass
class Plan:
    """All photos of one run in the order of their keys, and what was left out."""

    target: Path
    items: list[Item] = field(default_factory=list)
    ignored: int = 0
    """Files and folders passed over: other endings, hidden, links out of IN."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Folders below IN that could not be listed, with the reason."""


def plan(source: str, target: str, format: str | None = None) -> Plan:
    """The photos at `source` (a file or a folder) and their places under `target`.

    A file goes to `target` itself, in the format of its ending, unless `target` is a folder or ends in a slash.
    A folder's photos keep their relative paths and whole names, so a.jpg and a.png are two results. `format`: of
    all results, in any case of letters; what has another ending gets its ending added (`name_in`). Results that
    are there already are replaced, since nothing says which settings they are of. Raises UserError where there is
    nothing to restore, where a result would replace an original or where `target` has another format's ending.
    """
    format = format.upper() if format else None
    root = Path(source)
    if root.is_dir():
        return _plan_folder(root, Path(target), format)
    if root.is_file():
        return _plan_file(root, target, format)
    if root.exists():
        raise UserError(f"{source} is neither a photo nor a folder: give one of the two")
    raise UserError(f"{source} does not exist: give a photo or a folder of photos")


def prepare_output(folder: Path) -> None:
    """Make `folder` and prove that a file can be made in it; raises UserError where it can't."""
    probe = folder / temporary_name()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write into {folder} ({error.strerror}): choose another OUT") from error


def name_in(format: str | None, key: str) -> str:
    """The name of a photo's result: its key, with an ending of `format` added where it has another photo's.

    No two keys give one name, whatever else there is: a.jpg in PNG is a.jpg.png, beside a.png, and a photo that is
    called a.jpg.png itself gives a.jpg.png.png.
    """
    if format is None:
        return key
    stem, ending = os.path.splitext(key)
    two_endings = os.path.splitext(stem)[1].lower() in FORMAT_OF_SUFFIX
    return (
        key if FORMAT_OF_SUFFIX.get(ending.lower()) == format and not two_endings else key + SUFFIX_OF[format]
    )


SUFFIX_OF = {format: suffix for suffix, format in reversed(FORMAT_OF_SUFFIX.items())}
"""The first ending of each format."""


def _plan_file(source: Path, target: str, format: str | None) -> Plan:
    path = Path(target)
    if path.is_dir() or target.endswith(("/", os.sep)):
        path = path / name_in(format, source.name)
    else:
        of_ending = FORMAT_OF_SUFFIX.get(path.suffix.lower())
        if format and of_ending and format != of_ending:
            raise UserError(
                f"{target} has the ending of {of_ending}: leave --format out, or give {format}'s ending"
            )
        format = format or of_ending
    if _real(path) == _real(source):
        raise UserError(f"{source} would be replaced by its own result: choose another OUT")
    return Plan(path.parent, [Item(source.name, str(source.absolute()), str(path.absolute()), format)])


def _plan_folder(source: Path, target: Path, format: str | None) -> Plan:
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file: for the photos of a folder give a folder as OUT")
    real_source, real_target = _real(source), _real(target)
    if real_source == real_target:
        raise UserError(f"{source} would be replaced by its own results: choose another OUT")
    found = Plan(target)
    for key in _photos(source, real_target, found):
        name = name_in(format, key)
        result = target / name
        if (real_target / name).is_relative_to(real_source) and not real_target.is_relative_to(real_source):
            raise UserError(f"the result {result} would lie among the photos of {source}: choose another OUT")
        found.items.append(Item(key, str((source / key).absolute()), str(result.absolute()), format))
    if not found.items and not found.unreadable:
        endings = " ".join(FORMAT_OF_SUFFIX)
        raise UserError(f"no photos in {source} ({found.ignored} other files ignored): looked for {endings}")
    return found


def _photos(root: Path, out: Path, found: Plan) -> Iterator[str]:
    """Keys below `root` in sorted order, without the folder `out`; what is passed over is counted in `found`."""
    real_root = _real(root)

    def unreadable(error: OSError) -> None:
        key = os.path.relpath(error.filename, root)
        found.unreadable.append((Path(key).as_posix(), f"the folder cannot be listed ({error.strerror})"))

    for folder, folders, files in os.walk(root, onerror=unreadable):
        relative = Path(folder).relative_to(root)
        taken = []
        for name in sorted(folders):
            if _is_own(name) or os.path.islink(os.path.join(folder, name)):
                found.ignored += 1
            elif real_root / relative / name != out:
                taken.append(name)
        folders[:] = taken
        for name in sorted(files):
            if _is_photo(os.path.join(folder, name), name, real_root):
                yield (relative / name).as_posix()
            else:
                found.ignored += 1


def _is_photo(path: str, name: str, real_root: Path) -> bool:
    if _is_own(name) or os.path.splitext(name)[1].lower() not in FORMAT_OF_SUFFIX:
        return False
    if os.path.islink(path) and not _real(Path(path)).is_relative_to(real_root):
        return False
    return os.path.isfile(path)


def _is_own(name: str) -> bool:
    return name.startswith(".") or name == OWN_FOLDER


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
