"""Models leave CPUs for reading and writing, or a restore would wait for itself for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffuir_platform.restore.models import cpus_per_model
from diffuir_platform.restore.pipeline import CPUS_PER_TASK
from diffuir_platform.runtime import Resources, cluster_resources
from support.album import photo, put
from support.restoring import run


def nodes(*cpus: int) -> list[dict[str, object]]:
    return [{"Alive": True, "Resources": {"CPU": float(count)} if count else {}} for count in cpus]


@pytest.mark.parametrize("largest", [1, 2, 3, 4, 5, 8, 16, 61, 64, 96, 192])
def test_every_node_has_room_for_a_task_however_many_models_are_asked_for(
    largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in range(largest + 1):
        monkeypatch.setattr("ray.nodes", lambda other=other: nodes(0, largest, other, largest))
        resources = cluster_resources("cpu")
        share = cpus_per_model(resources)
        fitting = [int(cpus // share) if share else 0 for cpus in (largest, other)]
        for cpus, models in zip((largest, other), fitting, strict=True):
            assert not models or cpus - models * share > CPUS_PER_TASK
        # One model on each node with room for it, and beside it as many tasks as it leaves CPUs.
        assert resources.models == max(1, 2 * min(fitting[0], 1) + min(fitting[1], 1))
        assert (largest - share) // CPUS_PER_TASK >= largest - int(share)


@pytest.mark.parametrize("address", [None, "auto"], ids=["on this machine", "on a cluster"])
def test_more_models_than_there_is_room_for_hold_nothing_up(
    ray: Resources, tmp_path: Path, address: str | None
) -> None:
    for i in range(40):
        put(tmp_path / f"in/{i}.png", photo(4, 4, seed=i))
    models = 1 + int(2 * cluster_resources("cpu").model_cpus)
    assert run(str(tmp_path / "in"), str(tmp_path / "out"), address, models).done == 40
