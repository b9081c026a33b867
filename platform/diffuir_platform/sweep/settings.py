"""The settings of a sweep, and the training runs that they describe."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_validator,
)

from diffuir_core import UserError

from ..config import Config, parse_config, put
from ..train.settings import OPERATIONAL, TrainConfig

LONGEST_NAME = 100
"""Most characters in the name of a run, which is also the name of a folder."""


def _with_dots(grid: Any, prefix: str = "") -> Any:
    """The grid with dotted keys, where `grid.ema.decay=[...]` has made nested keys."""
    if not isinstance(grid, Mapping):
        return grid
    flat: dict[str, Any] = {}
    for key, value in grid.items():
        inner = isinstance(value, Mapping)
        flat |= _with_dots(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One run of a sweep."""

    values: dict[str, Any]
    """Value of each swept key in `config`."""
    config: TrainConfig
    """The settings of the run."""


class SweepConfig(Config):
    """A training run for every combination of some settings' values."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the sweep: its folder under `train.storage`, its run in MLflow, and the beginning of its runs'
    names. The same name resumes it."""
    grid: Annotated[dict[str, tuple[Any, ...]], BeforeValidator(_with_dots)]
    """Values to try, by the dotted key of a setting of a run: every combination is trained."""
    at_once: int | None = Field(default=None, gt=0)
    """Most runs at once; null for as many as the cluster, or the cores of this machine, have room for."""
    train: TrainConfig = TrainConfig()
    """Settings that all runs share; the table is made from its `validation`."""

    @field_serializer("train", mode="wrap")
    def _without_name(self, train: TrainConfig, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The shared settings without a name, since each run has its own."""
        return {key: value for key, value in serialize(train).items() if key != "name"}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if "name" in self.train.model_fields_set:
            raise ValueError("train.name: leave it out, each run is named after the sweep and its values")
        if not self.train.validation.wanted:
            raise ValueError(
                "train.validation names no pairs: give the index or the pairs that it measures on"
            )
        if not self.grid:
            raise ValueError("grid is empty: name at least one setting with its values")
        for key, values in self.grid.items():
            if not values:
                raise ValueError(f"grid: {key} has no values")
            if key.partition(".")[0] in {*OPERATIONAL, "name"}:
                raise ValueError(f"grid: {key} does not change what is learned: set it as train.{key}")
        try:
            names = [point.config.name for point in self.points()]
        except UserError as error:
            raise ValueError(str(error)) from error
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"grid: two runs would be called {name!r}, give each value once")
        return self

    def points(self) -> list[SweepPoint]:
        """Every combination, the last key's values changing fastest."""
        points = []
        for combination in itertools.product(*self.grid.values()):
            given = dict(zip(self.grid, combination, strict=True))
            settings = self.train.model_dump(mode="json", exclude_unset=True)
            for key, value in given.items():
                put(settings, key, value, f"grid: {key}")
            config = parse_config(TrainConfig, settings, _point_name(given))
            # As the model reads them: YAML reads 2e-4 as text, and 1e-4 and 0.0001 are one value.
            parsed = config.model_dump(mode="json")
            values = {key: _value_at(parsed, key) for key in given}
            config = config.model_copy(update={"name": _run_name(self.name, values)})
            points.append(SweepPoint(values=values, config=config))
        return points


def _value_at(settings: Any, key: str) -> Any:
    """The value at a dotted key, as `put` sets it."""
    for part in key.split("."):
        settings = settings[int(part) if isinstance(settings, list) else part]
    return settings


def _point_name(values: Mapping[str, Any]) -> str:
    return "grid at " + ", ".join(f"{key}={json.dumps(value, default=str)}" for key, value in values.items())


def _run_name(sweep: str, values: Mapping[str, Any]) -> str:
    """`<sweep>-<key>-<value>`, with a checksum where characters had to be left out, in which other values may
    differ."""
    text = "-".join(
        f"{key}-{value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()
    )
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")
    name = f"{sweep}-{plain}"
    if plain == text and len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
