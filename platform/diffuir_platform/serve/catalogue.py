"""The models of an endpoint, looked up once when it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import diffuir_core
from diffuir_core.pretrained import PRETRAINED
from diffuir_core.variants import variant

from ..inference import fetch_weights, pinned
from .settings import ServeSettings

BYTES_OF_A_PARAMETER = 4


@dataclass(frozen=True)
class ModelEntry:
    """One model. uri: its weights; None for the shipped ones. sha256: digest of the weights' file."""

    uri: str | None
    sha256: str
    variant: str
    parameters: int

    @property
    def gflop_256(self) -> float:
        """GFLOP of one pass over 256x256 pixels."""
        return variant(self.variant).gflop_256


class Catalogue(Mapping[str, ModelEntry]):
    """Name -> entry. models_in_memory: how many models a replica may hold, whichever they are."""

    def __init__(self, entries: Mapping[str, ModelEntry], models_in_memory: int) -> None:
        self._entries = dict(entries)
        self.models_in_memory = models_in_memory

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
        new version is served after a restart of the endpoint.
        """
        entries = {name: _entry(named) for name, named in settings.models.items()}
        largest = max(entry.parameters for entry in entries.values()) * BYTES_OF_A_PARAMETER
        return cls(entries, max(1, settings.models_memory // largest))


def _entry(named: str | None) -> ModelEntry:
    uri = pinned(named)
    weights = fetch_weights(uri)
    with weights.as_file() as file:
        variant = diffuir_core.open_weights(file or PRETRAINED).model.variant
    return ModelEntry(uri, weights.sha256, variant.name, variant.parameters)
