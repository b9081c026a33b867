"""The number of model replicas that the autoscaling policy wants."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from diffuir_platform.serve.model.scaling import replicas_for_work


@pytest.mark.parametrize(
    ("load", "busy", "requests", "wanted"),
    [
        ([0.0, 0.0], [0.0, 0.0], 0, 0),  # nothing to do: as few as there may be
        ([0.2], [0.3], 1, 1),
        ([1.4], [1.0], 5, 2),  # more work stands before it than may
        ([0.15, 0.13], [0.6, 0.6], 2, 2),  # one alone would be busy more than all of the time
        ([0.1, 0.1], [0.3, 0.3], 1, 1),
        ([6.0], [1.0], 1, 1),  # one large photo is no work for two
    ],
)
def test_there_is_a_process_for_each_unit_of_work(
    load: list[float], busy: list[float], requests: int, wanted: int
) -> None:
    told = {"load": dict(enumerate(load)), "busy": dict(enumerate(busy))}
    context = SimpleNamespace(aggregated_metrics=told, total_num_requests=requests, target_num_replicas=9)
    assert replicas_for_work(context)[0] == wanted


def test_while_none_has_told_anything_nothing_changes() -> None:
    context = SimpleNamespace(aggregated_metrics={}, total_num_requests=4, target_num_replicas=2)
    assert replicas_for_work(context)[0] == 2
