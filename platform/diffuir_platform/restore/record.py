"""The record of the settings that an output's results depend on, so that no run mixes in results of others."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from diffuir_core.errors import UserError

from .. import storage
from ..inference import FetchedWeights
from .settings import RestoreOptions

FILE = "settings.json"
REMEDY = "restore into another OUT, or replace them with --restart"


@dataclass(frozen=True)
class Record:
    """The settings of a run that its results depend on, and the folder that its keys are relative to."""

    settings: dict[str, Any]

    @classmethod
    def from_options(cls, options: RestoreOptions, weights: FetchedWeights, root: str | None) -> Self:
        """Make the record of a run. root: the folder that keys are relative to; None where keys are whole URIs."""
        return cls({"input": root, **options.result_settings(weights.sha256)})

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, the start of the settings' SHA-256."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def read(cls, folder: str) -> Self | None:
        """Read the record in an output's `_diffuir`; None where there is none."""
        uri = storage.join(folder, FILE)
        try:
            return cls(dict(json.loads(storage.read_bytes(uri))))
        except storage.NotThere:
            return None
        except (ValueError, TypeError) as error:
            raise UserError(f"{uri} is damaged ({error}): restore into another OUT, or --restart") from error

    def write(self, folder: str) -> None:
        """Write it into an output's `_diffuir`."""
        storage.write_bytes(storage.join(folder, FILE), json.dumps(self.settings, indent=1).encode())

    def check(self, found: Record, output: str, remedy: str = REMEDY) -> None:
        """Raise `UserError` that names each difference where `found`, the record of `output`, is another.

        remedy: what the error says to do.
        """
        names = sorted(self.settings.keys() | found.settings.keys())
        differences = [
            f"{name} was {_shown(found.settings.get(name))} and is {_shown(self.settings.get(name))}"
            for name in names
            if found.settings.get(name) != self.settings.get(name)
            # Photos restored so far stay as they are, and truncated ones that failed may be retried.
            and (name, self.settings.get(name)) != ("truncated", True)
        ]
        if differences:
            raise UserError(f"{output} holds results of other settings ({', '.join(differences)}): {remedy}")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:16] if len(text) == 64 else text
