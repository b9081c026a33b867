"""The models that an endpoint has, looked up once, when it is started."""

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
    """One model: where its weights lie, None for those that ship, and what they are."""

    uri: str | None
    sha256: str
    variant: str
    parameters: int

    @property
    def cost(self) -> float:
        """GFLOP of a pass over 256x256."""
        return variant(self.variant).gflop_256


class Catalogue(Mapping[str, ModelEntry]):
    """Name -> entry. at_once: how many of them a process may hold, which is known to fit whichever they are."""

    def __init__(self, entries: Mapping[str, ModelEntry], at_once: int) -> None:
        self._entries = dict(entries)
        self.at_once = at_once

    def __getitem__(self, name: str) -> ModelEntry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @classmethod
    def of(cls, settings: ServeSettings) -> Catalogue:
        """Every model of the settings, fetched and checked; raises `UserError` for one that can't be used.

        An alias of the registry becomes the version that it names now, so that all processes have the same:
        another one is served when the endpoint is started anew.
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
