"""Settings as parameters of MLflow: one level of names, and texts of a limited length."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

LONGEST_NAME = 250
"""MLflow's limit for the name of a parameter, characters."""
LONGEST_VALUE = 6000
"""MLflow's limit for the value of a parameter, characters."""


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as texts under dotted names; the items of a list of settings are numbered from 0."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, (list, tuple)) and any(isinstance(part, Mapping) for part in value):
            value = {str(i): part for i, part in enumerate(value)}
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{name}.")
        elif isinstance(value, (Mapping, list, tuple)):
            flat[name] = json.dumps(value, default=str)
        else:
            flat[name] = str(value)
    return flat


def shortened(flat: Mapping[str, str], whole: str) -> tuple[dict[str, str], bool]:
    """Return `flat` within MLflow's limits, and whether a value was cut; a cut value names the file `whole`."""
    mark = f"... (cut, whole in {whole})"
    short = {}
    cut = False
    for name, value in flat.items():
        if len(value) > LONGEST_VALUE:
            value, cut = value[: LONGEST_VALUE - len(mark)] + mark, True
        short[re.sub(r"[^\w\-. :/]", "_", name)[:LONGEST_NAME]] = value
    return short, cut
