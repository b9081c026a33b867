"""What an output's results depend on: written down, so that no run ever mixes others among them."""

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


@dataclass(frozen=True)
class Record:
    """The settings of a run that its results depend on, and where the keys of its inputs begin."""

    settings: dict[str, Any]

    @classmethod
    def of(cls, options: RestoreOptions, weights: FetchedWeights, root: str | None) -> Self:
        """That of a run. root: the folder that keys are relative to; None where they are whole URIs."""
        return cls({"input": root, **options.of_results(weights.sha256)})

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that stand for the settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def read(cls, folder: str) -> Self | None:
        """The one in an output's `_diffuir`; None where there is none."""
        uri = storage.join(folder, FILE)
        try:
            return cls(dict(json.loads(storage.read_bytes(uri))))
        except storage.NotThere:
            return None
        except (ValueError, TypeError) as error:
            raise UserError(f"{uri} is damaged ({error}): restore into another OUT, or --restart") from error

    def write(self, folder: str) -> None:
        """Write it down."""
        storage.write_bytes(storage.join(folder, FILE), json.dumps(self.settings, indent=1).encode())

    def check(self, found: Record, output: str) -> None:
        """Raise `UserError` where `found`, of what is in `output`, differs: with each difference named."""
        names = sorted(self.settings.keys() | found.settings.keys())
        differences = [
            f"{name} was {_shown(found.settings.get(name))} and is {_shown(self.settings.get(name))}"
            for name in names
            if found.settings.get(name) != self.settings.get(name)
            # What was restored so far stays as it is, and what failed may be retried.
            and (name, self.settings.get(name)) != ("truncated", True)
        ]
        if differences:
            raise UserError(
                f"{output} holds results of other settings ({', '.join(differences)}): "
                "restore into another OUT, or begin anew with --restart"
            )


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:16] if len(text) == 64 else text
