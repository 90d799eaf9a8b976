import dataclasses
import math
from typing import Any

import pytest
import torch

from isogon.kernels import Support, symexp, symlog


def test_edges_anchor_names_outer_edges() -> None:
    support = Support(-10.0, 10.0, 51)
    assert support.width == 20 / 51
    assert support.sigma == 0.75 * 20 / 51
    edges, centres = support.edges(dtype=torch.float64), support.centres(dtype=torch.float64)
    assert edges.shape == (52,)
    assert centres.shape == (51,)
    assert edges[0] == -10
    assert edges[-1] == 10
    torch.testing.assert_close(centres, (edges[1:] + edges[:-1]) / 2, rtol=0, atol=1e-14)


def test_atoms_anchor_names_outer_centres() -> None:
    support = Support(-5.0, 5.0, 101, anchor="atoms")
    assert support.width == 0.1
    edges, centres = support.edges(dtype=torch.float64), support.centres(dtype=torch.float64)
    assert centres[0] == -5
    assert centres[50] == 0
    assert centres[-1] == 5
    assert edges[0] == pytest.approx(-5.05)
    assert edges[-1] == pytest.approx(5.05)
    torch.testing.assert_close(centres, (edges[1:] + edges[:-1]) / 2, rtol=0, atol=1e-14)


def test_symexp_support_has_dreamers_bins() -> None:
    support = Support(-20.0, 20.0, 255, anchor="atoms", transform="symexp")
    centres = support.centres(dtype=torch.float64)
    k = torch.arange(255, dtype=torch.float64)
    torch.testing.assert_close(centres, symexp(-20 + 40 * k / 254), rtol=1e-12, atol=1e-12)
    assert torch.equal(centres, -centres.flip(0))
    assert support.highest == pytest.approx(math.exp(20) - 1)
    assert support.lowest == -support.highest


def test_uniform_distribution_over_mirrored_symexp_bins_is_worth_exactly_nothing() -> None:
    for bins in (254, 255):
        support = Support(-20.0, 20.0, bins, anchor="atoms", transform="symexp")
        probabilities = torch.softmax(torch.randn(7, 1).expand(7, bins), -1)
        assert torch.equal(support.expectation(probabilities), torch.zeros(7))


def test_expectation_is_over_values_for_symexp_and_on_the_grid_for_symlog() -> None:
    probabilities = torch.softmax(torch.randn(4, 9, dtype=torch.float64), -1)
    grid = torch.linspace(-2, 3, 9, dtype=torch.float64)
    plain, inside, outside = (
        Support(-2.0, 3.0, 9, anchor="atoms", transform=transform).expectation(probabilities)
        for transform in (None, "symexp", "symlog")
    )
    torch.testing.assert_close(plain, (probabilities * grid).sum(-1))
    torch.testing.assert_close(inside, (probabilities * symexp(grid)).sum(-1))
    torch.testing.assert_close(outside, symexp((probabilities * grid).sum(-1)))


def test_symlog_inverts_symexp() -> None:
    x = torch.tensor([-1e6, -3.0, -1e-9, 0.0, 1e-9, 0.5, 7.0, 1e6], dtype=torch.float64)
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-12, atol=0)
    assert symlog(torch.tensor(math.e - 1.0)).item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"vmin": 1.0, "vmax": 1.0}, "vmin is 1.0 and vmax 1.0"),
        ({"vmin": 2.0, "vmax": 1.0}, "vmin is 2.0"),
        ({"vmin": math.nan}, "vmin is nan"),
        ({"vmax": math.inf}, "vmax inf"),
        ({"bins": 1}, "bins is 1"),
        ({"bins": True}, "bins is True"),
        ({"bins": 3.0}, "bins is 3.0"),
        ({"sigma_ratio": 0.0}, "sigma_ratio is 0.0"),
        ({"sigma_ratio": math.inf}, "sigma_ratio is inf"),
        ({"anchor": "centres"}, "anchor is 'centres'"),
        ({"transform": "log"}, "transform is 'log'"),
        ({"transform": "symlog", "vmax": 500.0}, "vmax 500.0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Support(**{"vmin": 0.0, "vmax": 1.0, "bins": 4, **arguments})


def test_it_is_frozen_and_compares_by_value() -> None:
    assert Support(0.0, 1.0, 4) == Support(0.0, 1.0, 4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Support(0.0, 1.0, 4).bins = 5  # type: ignore[misc]
    with pytest.raises(ValueError, match="last must be 4 bins"):
        Support(0.0, 1.0, 4).expectation(torch.ones(3, 5))
