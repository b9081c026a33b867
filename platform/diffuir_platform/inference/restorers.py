"""Restorers by name: the one way in which restore, evaluate and serve take another restorer than DiffUIR.

    a name                      the restorer it stands for
    none                        DiffUIR with the weights of `weights`
    identity                    the photo as it is
    equalise                    each channel's histogram equalised, by OpenCV's formula
    sharpen                     an unsharp mask: radius 2 pixels, 150%, threshold 3 levels
    module:factory              a function of a module, called with the file of `weights` or None; it returns an
                                object with `precision` and `restorations`, or a function from a list of uint8
                                (H, W, 3) RGB arrays to one of the same shapes
    torchscript:FILE            TorchScript, exported programs and weights that spandrel knows
    exported:FILE               (diffuir_core/other_networks.py); FILE is a path or a URI, as for `weights`
    spandrel:FILE
    results:FOLDER              results that are made already: those of the same relative name, with any ending

A factory, TorchScript and an exported program are programs: whoever wrote them decides what they do. They are
loaded in the process that restores, and in no other.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from diffuir_core.errors import UserError
from diffuir_core.imaging import PHOTO_SUFFIXES

from .. import storage
from .weights import FetchedWeights, fetch_file, fetch_weights, pinned

if TYPE_CHECKING:
    from .other_restorer import OtherRestorer

BASELINES = ("identity", "equalise", "sharpen")  # functions: other_restorer.py
FILE_KINDS = ("torchscript", "exported", "spandrel")
RESULTS = "results"
FORMS = (*BASELINES, "module:factory", *(f"{kind}:FILE" for kind in FILE_KINDS), f"{RESULTS}:FOLDER")
SETTINGS_OF_DIFFUIR = ("steps", "seed", "guard", "precision")
"""Settings without effect on another restorer."""


@dataclass(frozen=True)
class RestorerName:
    """A name in its parts: the kind, which is "factory" for module:factory, and the rest."""

    kind: str
    rest: str = ""

    @classmethod
    def parse(cls, name: str) -> RestorerName:
        """Split a name; raises `UserError` for one of no known form."""
        kind, colon, rest = name.partition(":")
        if name in BASELINES:
            return cls(name)
        if kind in (*FILE_KINDS, RESULTS) and rest:
            return cls(kind, rest)
        is_factory = kind not in (*BASELINES, *FILE_KINDS, RESULTS) and colon
        if is_factory and all(part.isidentifier() for part in (*kind.split("."), *rest.split("."))):
            return cls("factory", name)
        raise UserError(f"there is no restorer {name!r}: write one of {', '.join(FORMS)}")

    @property
    def place(self) -> str | None:
        """The file or folder that the name holds."""
        return self.rest if self.kind in (*FILE_KINDS, RESULTS) else None

    @property
    def title(self) -> str:
        """The name without folders, for people and for clients."""
        return (
            f"{self.kind}:{self.rest.rstrip('/').rpartition('/')[2]}"
            if self.place
            else self.rest or self.kind
        )


def _checked(name: str | None) -> str | None:
    try:
        return name if name is None else _with_known_form(name)
    except UserError as error:
        raise ValueError(str(error)) from error


def _with_known_form(name: str) -> str:
    RestorerName.parse(name)
    return name


NamedRestorer = Annotated[str | None, AfterValidator(_checked)]
"""Type of a setting that names a restorer."""


def fetch_model(restorer: str | None, weights: str | None, check: bool = True) -> FetchedWeights:
    """Fetch the file that a restorer needs: that in its name, or `weights`, those of DiffUIR if restorer is None.

    Executes nothing of the restorer. check: for DiffUIR, as for `fetch_weights`. Raises `UserError` for what is
    missing, and for `weights` that the restorer does not take.
    """
    if restorer is None:
        return fetch_weights(weights, check)
    name = RestorerName.parse(restorer)
    if name.kind == "factory":
        _source(name.rest)
    elif weights is not None:
        raise UserError(f"the restorer {restorer} takes no weights: leave out --weights")
    elif name.kind == RESULTS and not storage.is_folder(name.rest):
        raise UserError(f"there is no folder {name.rest}: name the folder of the results")
    file = name.rest if name.kind in FILE_KINDS else weights
    if file is not None:
        return fetch_file(file)
    return FetchedWeights("", None, "none")


def recorded(restorer: str) -> str:
    """The text that stands for a restorer in the settings that results depend on.

    It holds a hash of the file of a factory's module, or of the names, sizes and times of results. The hash of a
    file of weights is recorded beside it.
    """
    name = RestorerName.parse(restorer)
    if name.kind in FILE_KINDS:
        return name.kind
    if name.kind == RESULTS:
        entries = (one for one in storage.list_entries(name.rest) if one.uri.lower().endswith(PHOTO_SUFFIXES))
        digests = (_sha256(f"{one.uri} {one.size} {one.version}".encode()) for one in entries)
        total = sum(int(digest, 16) for digest in digests) % 2**256  # they come in no order
        return f"{RESULTS}:{storage.absolute(name.rest)} ({_sha256(str(total).encode())[:16]})"
    if name.kind == "factory":
        source = _source(name.rest)
        return f"{name.rest} ({_sha256(source.read_bytes())[:16]})" if source else name.rest
    return name.kind


def pinned_restorer(restorer: str | None) -> str | None:
    """A name of the same restorer that holds in every folder and, of an alias of the registry, for good."""
    name = None if restorer is None else RestorerName.parse(restorer)
    return restorer if name is None or name.place is None else f"{name.kind}:{pinned(name.place)}"


def _source(factory: str) -> Path | None:
    """The file of a factory's module, None for one without; raises `UserError` where there is no such module."""
    module = factory.partition(":")[0]
    _look_in(os.getcwd())
    try:
        spec = importlib.util.find_spec(module)
    except Exception as error:  # the packages above it are imported
        raise _cannot_import(module, error) from error
    if spec is None:
        raise UserError(
            f"there is no module {module}: start the command in its folder, install it, or add it to PYTHONPATH"
        )
    return Path(spec.origin) if spec.has_location and spec.origin else None


def _look_in(folder: str) -> None:
    """Have modules found in `folder`, after all others: there, a file may be named like one of Python's."""
    if folder not in sys.path:
        sys.path.append(folder)


def load_restorer(
    restorer: str,
    file: Path | None,
    *,
    device: str = "auto",
    tile: int | None = None,
    strength: float = 1.0,
    equalise: bool = False,
    code: str | None = None,
) -> OtherRestorer:
    """Load a restorer; file: what `fetch_model` fetched; code: a folder in which a factory's module may be, too.

    device, tile: as for `Restorer`, for networks. Raises `UserError` where it can't be made, whatever it raised.
    """
    from .other_restorer import adapted

    name = RestorerName.parse(restorer)
    try:
        made = _made(name, file, device, tile, code)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"the restorer {name.title} can't be loaded ({_short(error)}): look whether it is what its name says"
        ) from error
    return adapted(made, name.title).with_settings(strength=strength, equalise=equalise)


def _made(name: RestorerName, file: Path | None, device: str, tile: int | None, code: str | None) -> object:
    from . import other_restorer

    if name.kind == "factory":
        return _factory(name.rest, code)(file)
    if name.kind == RESULTS:
        return other_restorer.Results(name.rest)
    if name.kind in BASELINES:
        one = other_restorer.BASELINES[name.kind]
        return lambda images: [one(image) for image in images]
    import torch

    from diffuir_core import other_networks

    assert file is not None
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    network = getattr(other_networks, f"{name.kind}_net")(file, where)
    return other_networks.NetworkRestorer(network, where, tile)


def _factory(named: str, code: str | None) -> Callable[[Path | None], object]:
    module, _, function = named.partition(":")
    _look_in(code or os.getcwd())
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise _cannot_import(module, error) from error
    try:
        return attrgetter(function)(found)
    except AttributeError as error:
        raise UserError(f"the module {module} has no {function}: write module:factory") from error


def _cannot_import(module: str, error: Exception) -> UserError:
    return UserError(f"the module {module} can't be imported ({_short(error)}): correct it, or name another")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()).partition('. ')[0][:160]}"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
