"""The cost of each variant, beside the paper's figures."""

from __future__ import annotations

import pytest

from diffuir_core import Restorer, UserError
from diffuir_core.metrics.cost import PAPER_COST, cost, count_gflop, count_parameters, measure_seconds
from diffuir_core.unet import build
from diffuir_core.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_the_papers_and_operations_many_times_its(name: str) -> None:
    found, paper = cost(name), PAPER_COST[name]
    assert found.seconds is None
    assert found.paper == paper
    assert found.parameters / 1e6 == pytest.approx(paper.parameters_m, abs=0.006)
    # What the paper reports of the network is a twentieth of what PyTorch counts.
    assert 20 < found.gflop / paper.flops_g < 26
    assert found.gflop == pytest.approx(VARIANTS[name].gflop_256, rel=0.1)


def test_operations_are_counted_at_the_size_that_is_padded_to_and_grow_with_it() -> None:
    assert count_gflop("T", 100, 120) == count_gflop("T", 112, 128)
    assert count_gflop("T", 128, 256) == pytest.approx(count_gflop("T", 256, 256) / 2, rel=0.02)


def test_parameters_and_seconds_are_those_of_a_model() -> None:
    assert count_parameters(build("T")) == VARIANTS["T"].parameters
    assert 0 < measure_seconds(Restorer(device="cpu", steps=1), 32, 48, turns=1) < 60


def test_another_variant_is_refused() -> None:
    with pytest.raises(UserError, match="no variant 'M'"):
        cost("M")
