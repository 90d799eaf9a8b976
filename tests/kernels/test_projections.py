import math
from fractions import Fraction

import mpmath  # type: ignore[import-untyped]
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.kernels import Support, project_categorical, symexp, target_probabilities
from isogon.kernels.projections import Projection

PROJECTIONS: tuple[Projection, ...] = ("hl_gauss", "two_hot", "one_hot")


def exact_hl_gauss(y: float, support: Support) -> list[float]:
    """The definition with 60 digits: Phi at rational edges, no shortcut."""
    vmin, vmax, ratio = Fraction(support.vmin), Fraction(support.vmax), Fraction(support.sigma_ratio)
    if support.anchor == "edges":
        width = (vmax - vmin) / support.bins
        lowest = vmin
    else:
        width = (vmax - vmin) / (support.bins - 1)
        lowest = vmin - width / 2
    target = min(max(Fraction(y), vmin), vmax)
    with mpmath.workdps(60):
        # Phi(x) rounds to 1 on the right: half of the distribution is mirrored to the left, where it does not.
        def cdf_difference(a: Fraction, b: Fraction) -> mpmath.mpf:
            lower, upper = (mpmath.mpf(e.numerator) / e.denominator for e in (a, b))
            if lower > 0:
                lower, upper = -upper, -lower
            return mpmath.ncdf(upper) - mpmath.ncdf(lower)

        sigma = ratio * width
        u = [(lowest + k * width - target) / sigma for k in range(support.bins + 1)]
        in_range = cdf_difference(u[0], Fraction(0)) + cdf_difference(Fraction(0), u[-1])
        return [float(cdf_difference(u[k], u[k + 1]) / in_range) for k in range(support.bins)]


@pytest.mark.parametrize(
    "support",
    [
        Support(-10.0, 10.0, 51),
        Support(-6.0, 0.0, 31),
        Support(0.0, 1.0, 2),
        Support(0.0, 1.0, 128, sigma_ratio=2.0),
        Support(-0.3, 0.7, 101, sigma_ratio=20.0),
        Support(-1.0, 1.0, 255, sigma_ratio=0.1),
        Support(-5.0, 5.0, 21, anchor="atoms"),
        Support(-1000.0, 3000.0, 1001),
    ],
    ids=lambda s: f"{s.bins} bins, {s.sigma_ratio} sigma, {s.anchor}",
)
def test_hl_gauss_matches_its_definition(support: Support) -> None:
    span = support.vmax - support.vmin
    few = support.bins > 500
    shares = (0.0, 0.31830988618, 1.0) if few else (-0.5, 0.0, 1e-9, 0.25, 0.31830988618, 0.5, 0.97, 1.0, 7.0)
    targets = torch.tensor([support.vmin + share * span for share in shares], dtype=torch.float64)
    exact = torch.tensor([exact_hl_gauss(float(y), support) for y in targets], dtype=torch.float64)
    in_64 = target_probabilities(targets, support)
    # Far from the centre a rounding error of the position is multiplied by up to 38 standard deviations.
    torch.testing.assert_close(in_64, exact, rtol=1e-9, atol=1e-300)
    in_32 = target_probabilities(targets, support, dtype=torch.float32)
    torch.testing.assert_close(in_32.double(), exact, rtol=1e-4, atol=1e-37)
    torch.testing.assert_close(in_32.double(), exact, rtol=0, atol=5e-7)


def test_tails_do_not_cancel() -> None:
    support = Support(-10.0, 10.0, 51)
    for dtype, reach in ((torch.float32, 9), (torch.float64, 27)):
        p = target_probabilities(torch.tensor([0.0], dtype=torch.float64), support, dtype=dtype)[0]
        assert bool((p[25 - reach : 26 + reach] > 0).all())
        torch.testing.assert_close(p, p.flip(0), rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=0)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.75, 1.0])
def test_hl_gauss_mean_is_the_target_within_the_known_bound(ratio: float) -> None:
    """Binning a Gaussian adds a sawtooth to its mean: by Poisson summation at most (w / pi) exp(-2 (pi ratio)^2)."""
    support = Support(-10.0, 10.0, 50, sigma_ratio=ratio)
    y = torch.linspace(-0.2, 0.2, 4001, dtype=torch.float64)
    error = (support.expectation(target_probabilities(y, support)) - y).abs().max().item()
    bound = support.width / math.pi * math.exp(-2 * (math.pi * ratio) ** 2)
    assert error <= 1.02 * bound + 1e-13
    assert error >= 0.95 * bound - 1e-13


def test_hl_gauss_mean_is_inside_at_the_ends() -> None:
    support = Support(-10.0, 10.0, 51)
    mean = support.expectation(target_probabilities(torch.tensor([-10.0, 10.0], dtype=torch.float64), support))
    half_normal = support.sigma * math.sqrt(2 / math.pi)
    torch.testing.assert_close(mean, torch.tensor([-10 + half_normal, 10 - half_normal]).double(), rtol=0, atol=0.04)


def test_narrow_gaussians_become_one_hot_on_centres_and_half_half_on_edges() -> None:
    for ratio in (0.1, 0.01, 1e-4, 1e-30):
        support = Support(0.0, 4.0, 4, sigma_ratio=ratio)
        p = target_probabilities(torch.tensor([1.5, 2.0, 0.0]), support)
        wanted = torch.tensor([[0.0, 1, 0, 0], [0, 0.5, 0.5, 0], [1, 0, 0, 0]])
        torch.testing.assert_close(p, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("transform", [None, "symlog", "symexp"])
@pytest.mark.parametrize("anchor", ["edges", "atoms"])
def test_two_hot_mean_is_the_target_exactly(anchor: str, transform: str | None) -> None:
    support = Support(-3.0, 5.0, 17, anchor=anchor, transform=transform)  # type: ignore[arg-type]
    centres = support.centres(dtype=torch.float64)
    y = torch.cat([torch.linspace(float(centres[0]), float(centres[-1]), 501, dtype=torch.float64), centres])
    p = target_probabilities(y, support, "two_hot")
    assert bool(((p > 1e-12).sum(-1) <= 2).all())
    torch.testing.assert_close(p.sum(-1), torch.ones_like(y), rtol=1e-14, atol=0)
    torch.testing.assert_close(support.expectation(p), y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p[-17:], torch.eye(17, dtype=torch.float64), rtol=0, atol=1e-12)


def test_one_hot_takes_the_bin_below_an_edge() -> None:
    support = Support(0.0, 1.0, 4)
    y = torch.tensor([-3.0, 0.0, 0.1, 0.25, 0.26, 0.5, 0.75, 0.99, 1.0, math.inf])
    assert target_probabilities(y, support, "one_hot").argmax(-1).tolist() == [0, 0, 0, 0, 1, 1, 2, 3, 3, 3]
    torch.testing.assert_close(target_probabilities(y, support, "one_hot").sum(-1), torch.ones(10))


@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(-1e4, 1e4),
    span=st.floats(1e-2, 1e5),
    bins=st.integers(2, 300),
    ratio=st.floats(0.01, 30),
    share=st.floats(-2, 3),
    projection=st.sampled_from(PROJECTIONS),
    anchor=st.sampled_from(["edges", "atoms"]),
)
def test_projections_are_distributions(
    low: float, span: float, bins: int, ratio: float, share: float, projection: Projection, anchor: str
) -> None:
    support = Support(low, low + span, bins, ratio, anchor)  # type: ignore[arg-type]
    y = torch.tensor([low + share * span], dtype=torch.float64)
    p = target_probabilities(y, support, projection)
    assert bool((p >= 0).all())
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    p32 = target_probabilities(y, support, projection, dtype=torch.float32)
    assert p32.sum().item() == pytest.approx(1, abs=3e-6 * max(1.0, ratio))


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_nan_and_half_precision_targets(projection: Projection) -> None:
    support = Support(0.0, 1.0, 8)
    y = torch.tensor([0.3, math.nan, 0.7])
    p = target_probabilities(y, support, projection)
    assert bool(p[1].isnan().all())
    assert torch.equal(p[::2], target_probabilities(y[::2], support, projection))
    half = target_probabilities(y[::2].bfloat16(), support, projection)
    assert half.dtype == torch.float32
    assert torch.equal(half, target_probabilities(y[::2].bfloat16().float(), support, projection))


def test_bad_projection_arguments_are_named() -> None:
    support = Support(0.0, 1.0, 8)
    with pytest.raises(ValueError, match="projection is 'gauss'"):
        target_probabilities(torch.rand(2), support, "gauss")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"target has dtype torch.int64"):
        target_probabilities(torch.arange(2), support)
    with pytest.raises(ValueError, match=r"dtype is torch.float16"):
        target_probabilities(torch.rand(2), support, dtype=torch.float16)


def equation_7(reward: float, discount: float, p: list[float], atoms: list[float]) -> list[float]:
    """Bellemare et al. 2017, for equally spaced atoms, one sum per bin."""
    spacing = atoms[1] - atoms[0]
    moved = [min(max(reward + discount * z, atoms[0]), atoms[-1]) for z in atoms]
    return [
        sum(min(max(1 - abs(tz - z) / spacing, 0), 1) * mass for tz, mass in zip(moved, p, strict=True)) for z in atoms
    ]


@pytest.mark.parametrize("support", [Support(-2.0, 3.0, 11, anchor="atoms"), Support(-1.0, 1.0, 2, anchor="atoms")])
def test_categorical_projection_matches_equation_7(support: Support) -> None:
    generator = torch.Generator().manual_seed(1)
    reward = 3 * torch.randn(40, generator=generator, dtype=torch.float64)
    discount = torch.rand(40, generator=generator, dtype=torch.float64)
    p = torch.softmax(2 * torch.randn(40, support.bins, generator=generator, dtype=torch.float64), -1)
    atoms = support.centres(dtype=torch.float64).tolist()
    wanted = [equation_7(*row, atoms) for row in zip(reward.tolist(), discount.tolist(), p.tolist(), strict=True)]
    projected = project_categorical(reward, discount, p, support)
    torch.testing.assert_close(projected, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-14)
    in_32 = project_categorical(reward.float(), discount.float(), p.float(), support)
    torch.testing.assert_close(in_32.double(), projected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("transform", [None, "symlog", "symexp"])
def test_categorical_projection_identities(transform: str | None) -> None:
    support = Support(-2.0, 2.0, 9, anchor="atoms", transform=transform)  # type: ignore[arg-type]
    p = torch.softmax(torch.randn(2, 3, 9, dtype=torch.float64), -1)
    zero, one = torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    torch.testing.assert_close(project_categorical(zero, one, p, support), p, rtol=0, atol=1e-12)
    reward = 2 * torch.randn(2, 3, dtype=torch.float64)
    ended = project_categorical(reward, zero, p, support)
    torch.testing.assert_close(ended, target_probabilities(reward, support, "two_hot"), rtol=0, atol=1e-12)


def test_symexp_categorical_projection_keeps_the_mean() -> None:
    support = Support(-3.0, 3.0, 15, anchor="atoms", transform="symexp")
    p = torch.softmax(torch.randn(20, 15, dtype=torch.float64), -1)
    reward, discount = torch.rand(20, dtype=torch.float64), torch.full((20,), 0.9, dtype=torch.float64)
    assert 1 + 0.9 * float(symexp(torch.tensor(3.0))) < support.highest
    mean = reward + discount * support.expectation(p)
    torch.testing.assert_close(support.expectation(project_categorical(reward, discount, p, support)), mean)


def test_categorical_projection_keeps_nan_in_its_row_and_names_bad_shapes() -> None:
    support = Support(-1.0, 1.0, 5, anchor="atoms")
    p = torch.softmax(torch.randn(3, 5), -1)
    projected = project_categorical(torch.tensor([0.1, math.nan, math.inf]), torch.ones(3), p, support)
    assert projected.isnan().any(1).tolist() == [False, True, False]
    torch.testing.assert_close(projected[2], torch.tensor([0.0, 0, 0, 0, 1]))
    with pytest.raises(ValueError, match="support's 5 bins"):
        project_categorical(torch.ones(3), torch.ones(3), torch.ones(3, 4), support)
    with pytest.raises(ValueError, match="discount has shape"):
        project_categorical(torch.ones(3), torch.ones(3, 1), p, support)
