"""The four published sizes of the network (section 4.2, Table 1)."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import UserError


@dataclass(frozen=True)
class Variant:
    """One size of the network."""

    name: str
    """"T", "S", "B" or "L"."""
    dim: int
    """Channels of the first level (C in the paper)."""
    multipliers: tuple[int, int, int, int]
    """Channels of the next four levels, as multiples of `dim`."""
    parameters: int
    """Exact number of parameters."""
    gflop_256: float
    """Cost of one 256x256 pass in GFLOP, by PyTorch's own counter."""


VARIANTS = {
    v.name: v
    for v in (
        Variant("T", 32, (1, 1, 1, 1), 886_435, 34.6),
        Variant("S", 32, (1, 2, 2, 4), 3_268_643, 48.4),
        Variant("B", 64, (1, 2, 2, 4), 12_406_851, 167.3),
        Variant("L", 64, (1, 2, 4, 8), 36_261_187, 238.3),
    )
}


def variant(name: str) -> Variant:
    """The variant called `name` ("T", "S", "B" or "L"); raises `UserError` for any other name."""
    try:
        return VARIANTS[name]
    except KeyError:
        raise UserError(f"there is no variant {name!r}: choose one of {', '.join(VARIANTS)}") from None
