"""The models of an endpoint, looked up once when it starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import diffuir_core
from diffuir_core.pretrained import PRETRAINED
from diffuir_core.variants import variant

from ..inference import RestorerName, fetch_model, fetch_weights, pinned, pinned_restorer, recorded
from ..restore.settings import RestoreOptions
from .settings import ServeSettings

BYTES_OF_A_PARAMETER = 4


@dataclass(frozen=True)
class ModelEntry:
    """One model.

    uri: its weights; None for the shipped ones, or for a restorer without. sha256: digest of the file, or of what
    is recorded of a restorer without one. variant, parameters: None for another restorer than DiffUIR.
    """

    uri: str | None
    sha256: str
    variant: str | None
    parameters: int | None
    bytes: int = 0
    """Size of the file of another restorer."""

    @property
    def gflop_256(self) -> float | None:
        """GFLOP of one pass over 256x256 pixels; None for another restorer."""
        return None if self.variant is None else variant(self.variant).gflop_256

    @property
    def memory(self) -> int:
        """Bytes of its weights."""
        return self.bytes if self.parameters is None else self.parameters * BYTES_OF_A_PARAMETER


class Catalogue(Mapping[str, ModelEntry]):
    """Name -> entry.

    models_in_memory: how many models a replica may hold, whichever they are. restorer: that of all models, None
    for DiffUIR. code: a folder in which its module may be.
    """

    def __init__(
        self,
        entries: Mapping[str, ModelEntry],
        models_in_memory: int,
        restorer: str | None = None,
        code: str | None = None,
    ) -> None:
        self._entries = dict(entries)
        self.models_in_memory = models_in_memory
        self.restorer, self.code = restorer, code

    @property
    def restorer_title(self) -> str | None:
        """Title of another restorer than DiffUIR, without folders."""
        return None if self.restorer is None else RestorerName.parse(self.restorer).title

    def __getitem__(self, name: str) -> ModelEntry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @classmethod
    def of(cls, settings: ServeSettings) -> Catalogue:
        """Fetch and check every model of the settings; raises `UserError` for one that can't be used.

        An alias of the registry becomes the version that it names now, so that all processes have the same one; a
        new version is served after a restart of the endpoint. Another restorer is loaded once in a process of its
        own.
        """
        restorer = pinned_restorer(settings.restorer)
        if restorer is None:
            entries = {name: _entry(named) for name, named in settings.models.items()}
        else:
            entries = {name: _entry_of(restorer, named, settings) for name, named in settings.models.items()}
        largest = max(entry.memory for entry in entries.values())
        return cls(entries, max(1, settings.models_memory // max(1, largest)), restorer, os.getcwd())


def _entry_of(restorer: str, named: str | None, settings: ServeSettings) -> ModelEntry:
    # Imported here, because gateways load this module and restore no collection.
    from ..restore.local import check_loads, prepared

    uri = pinned(named)
    fetched = fetch_model(restorer, uri)
    check_loads(prepared(None, fetched, RestoreOptions(restorer=restorer, device=settings.device), target=""))
    if fetched.data is None:
        return ModelEntry(None, hashlib.sha256(recorded(restorer).encode()).hexdigest(), None, None)
    place = RestorerName.parse(restorer).place
    return ModelEntry(uri or place, fetched.sha256, None, None, len(fetched.data))


def _entry(named: str | None) -> ModelEntry:
    uri = pinned(named)
    weights = fetch_weights(uri)
    with weights.as_file() as file:
        variant = diffuir_core.open_weights(file or PRETRAINED).model.variant
    return ModelEntry(uri, weights.sha256, variant.name, variant.parameters)
