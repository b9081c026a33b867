"""As many models as a cluster has room for, and not for ever waiting for more."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffuir_platform.restore.pipeline import LEAST_CPUS
from diffuir_platform.runtime import Resources, cluster_resources
from support.album import photo, put
from support.restoring import run


def nodes(*cpus: int) -> list[dict[str, object]]:
    return [{"Alive": True, "Resources": {"CPU": float(count)} if count else {}} for count in cpus]


@pytest.mark.parametrize("largest", [1, 2, 3, 4, 5, 8, 16, 61, 64, 96, 192])
def test_models_take_no_more_than_there_is(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in range(largest + 1):
        monkeypatch.setattr("ray.nodes", lambda other=other: nodes(0, largest, other, largest))
        resources = cluster_resources("cpu")
        share = resources.model_cpus or LEAST_CPUS
        fitting = sum(int(cpus // share) for cpus in (largest, other, largest))
        assert resources.models == (fitting if resources.model_cpus else 1)


@pytest.mark.parametrize("address", [None, "auto"], ids=["on this machine", "on a cluster"])
def test_more_models_than_there_is_room_for_hold_nothing_up(
    ray: Resources, tmp_path: Path, address: str | None
) -> None:
    for i in range(40):
        put(tmp_path / f"in/{i}.png", photo(4, 4, seed=i))
    models = 1 + int(2 * cluster_resources("cpu").model_cpus)
    assert run(str(tmp_path / "in"), str(tmp_path / "out"), address, models).done == 40
