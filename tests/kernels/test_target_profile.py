"""`isogon.kernels.target_profile` against error functions of many digits, and plain torch's masses too."""

from __future__ import annotations

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erfc

from isogon.kernels import Support, target_probabilities
from isogon.kernels.target_profile import Profile, profile

RATIOS = (1e-6, 1e-4, 0.01, 0.05, 0.0892, 0.0893, 0.1, 0.13, 0.3, 0.75, 1.0, 2.0, 5.0, 20.0, 100.0)
FRACTIONS = np.unique(np.concatenate([np.linspace(0, 1, 400, endpoint=False), 1 - np.geomspace(1e-9, 0.5, 50)]))


def mass(curve: Profile, fraction: float, sigma_ratio: float) -> np.ndarray:
    """Masses of the window's bins of a target so far from the edge below it, as kernels read a profile."""
    table = curve.coefficients.double().numpy()
    if curve.place == "cell":
        along = fraction * table.shape[0]
        piece = int(along)
    else:
        pieces = table.shape[0] // 2
        along = min((1 - fraction if fraction > 0.5 else fraction) * curve.scale, pieces)
        piece = min(int(along), pieces - 1)
        along, piece = (along - piece, piece + pieces if fraction > 0.5 else piece)
        along += piece
    s = 2 * (along - piece) - 1
    masses: np.ndarray = np.maximum(s ** np.arange(table.shape[1]) @ table[piece], 0)
    return masses


@pytest.mark.parametrize("ratio", RATIOS)
def test_4_masses_of_a_gaussian(ratio: float) -> None:
    """To 3e-8 of what error functions say, at every place within a cell, in a window that leaves nothing out."""
    curve = profile("hl_gauss", ratio, 10**6)
    window = curve.coefficients.shape[-1]
    assert window % 16 == 0
    for fraction in FRACTIONS:
        edges = (np.arange(window + 1) - curve.before - fraction) / ratio
        below, above = erfc(np.abs(edges[:-1]) / np.sqrt(2)) / 2, erfc(np.abs(edges[1:]) / np.sqrt(2)) / 2
        exact = np.where((edges[:-1] < 0) & (edges[1:] > 0), 1 - below - above, np.abs(below - above))
        got = mass(curve, float(fraction), ratio)
        real = 2 * curve.before + 1
        assert np.abs(got - exact)[:real].max() < 3e-8 + 6e-8 * exact.max()
        assert np.all(got[real:] == 0)
        assert exact[:real].sum() > 1 - 2.2e-8
        assert abs(got.sum() - 1) < 1e-6


@pytest.mark.parametrize("ratio", [1e-6, 1e-3, 0.05])
def test_4_a_narrow_gaussian_far_from_edges_is_one_bin(ratio: float) -> None:
    """Exactly: the least mass in a masked bin would make the loss infinite."""
    for fraction in (0.4, 0.5, 0.6):
        assert mass(profile("hl_gauss", ratio, 51), fraction, ratio)[:3].tolist() == [0, 1, 0]


@pytest.mark.parametrize("bins", [2, 51])
def test_4_windows_are_no_wider_than_all_bins_need(bins: int) -> None:
    assert profile("hl_gauss", 1e7, bins).coefficients.shape[-1] <= 2 * bins + 16
    assert profile("hl_gauss", 0.75, 1001).coefficients.shape[-1] == 16


@settings(max_examples=40, deadline=None)
@given(
    bins=st.integers(2, 40),
    ratio=st.floats(1e-3, 30),
    place=st.floats(-0.2, 1.2),
    anchor=st.sampled_from(["edges", "atoms"]),
)
def test_13_plain_torchs_masses_have_many_right_digits(bins: int, ratio: float, place: float, anchor: str) -> None:
    """The oracle of all kernels against the formula in 50 digits: each mass to 1e-13, tails to 1e-9 of themselves."""
    support = Support(-3.0, 4.0, bins, ratio, anchor)  # type: ignore[arg-type]
    target = -3.0 + 7.0 * place
    got = target_probabilities(torch.tensor(target, dtype=torch.float64), support)
    with mpmath.workdps(50):
        width = mpmath.mpf(7) / (bins if anchor == "edges" else bins - 1)
        first = mpmath.mpf(-3) - (0 if anchor == "edges" else width / 2)
        y = min(max(mpmath.mpf(target), mpmath.mpf(-3)), mpmath.mpf(4))
        below = [mpmath.erfc(-(first + k * width - y) / (ratio * width) / mpmath.sqrt(2)) / 2 for k in range(bins + 1)]
        above = [mpmath.erfc((first + k * width - y) / (ratio * width) / mpmath.sqrt(2)) / 2 for k in range(bins + 1)]
        whole = below[-1] - below[0]
        wanted = [
            (below[k + 1] - below[k] if first + k * width < y else above[k] - above[k + 1]) / whole for k in range(bins)
        ]
        for k in range(bins):
            assert abs(got[k].item() - wanted[k]) < 1e-13 * max(1, 1 / ratio), (k, got[k].item(), wanted[k])
