"""Settings as MLflow takes them: one level of names, and texts of a limited length."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

LONGEST_NAME = 250
LONGEST_VALUE = 6000
"""MLflow's limits, in characters."""


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings under dotted names, as texts; the parts of a list of settings are numbered from 0."""
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
    """`flat` within MLflow's limits, and whether anything was cut; a cut text points to the file `whole`."""
    mark = f"... (cut, whole in {whole})"
    short = {}
    cut = False
    for name, value in flat.items():
        if len(value) > LONGEST_VALUE:
            value, cut = value[: LONGEST_VALUE - len(mark)] + mark, True
        short[re.sub(r"[^\w\-. :/]", "_", name)[:LONGEST_NAME]] = value
    return short, cut
