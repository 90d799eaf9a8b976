import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from isogon.kernels import HLGaussStats, Projection, Reduction, Support, hl_gauss_loss, robust, target_probabilities
from isogon.kernels.robust import (
    aldr_kl_loss,
    comp_sum_loss,
    generalised_cross_entropy_loss,
    huber_loss,
    label_smoothed_loss,
    ldr_kl_loss,
    mse_loss,
    symmetric_cross_entropy_loss,
    z_loss,
)

Loss = Callable[..., Any]
SUPPORT = Support(-2.0, 3.0, 11)
REDUCTIONS: tuple[Reduction, ...] = ("mean", "sum", "weighted_mean", "none")


def comp_sum(f: torch.Tensor, p: torch.Tensor, y: torch.Tensor, *, tau: float) -> torch.Tensor:
    """From the paper's own definition, by sums of exponentials of differences."""
    one_plus_u = torch.exp(f.unsqueeze(-2) - f.unsqueeze(-1)).sum(-1)
    per_class = torch.log(one_plus_u) if tau == 1 else (one_plus_u ** (1 - tau) - 1) / (1 - tau)
    return (p * per_class).sum(-1)


def generalised(f: torch.Tensor, p: torch.Tensor, y: torch.Tensor, *, q: float) -> torch.Tensor:
    return (p * (1 - torch.softmax(f, -1) ** q) / q).sum(-1)


def symmetric(
    f: torch.Tensor, p: torch.Tensor, y: torch.Tensor, *, alpha: float, beta: float, log_zero: float
) -> torch.Tensor:
    q = torch.softmax(f, -1)
    return -alpha * (p * q.log()).sum(-1) - beta * (q * p.log().clamp(min=log_zero)).sum(-1)


def smoothed(f: torch.Tensor, p: torch.Tensor, y: torch.Tensor, *, epsilon: float) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(f, p, reduction="none", label_smoothing=epsilon)


def ldr(
    f: torch.Tensor, p: torch.Tensor, y: torch.Tensor, *, temperature: float | torch.Tensor, margin: float
) -> torch.Tensor:
    classes = f.shape[-1]
    difference = f.unsqueeze(-2) - f.unsqueeze(-1) + margin * (1 - torch.eye(classes, dtype=f.dtype))
    t = torch.as_tensor(temperature, dtype=f.dtype).expand(f.shape[:-1])[..., None, None]
    per_class = t[..., 0] * (torch.logsumexp(difference / t, -1) - math.log(classes))
    return (p * per_class).sum(-1)


def aldr(
    f: torch.Tensor, p: torch.Tensor, y: torch.Tensor, *, temperature: float, alpha: float, margin: float, steps: int
) -> torch.Tensor:
    classes = f.shape[-1]
    own = torch.full(f.shape[:-1], temperature, dtype=f.dtype)
    for _ in range(steps):
        d = torch.softmax(f.detach() / own[..., None], -1)
        own = temperature * (1 - (d * torch.log(classes * d)).sum(-1) / (alpha * math.log(classes)))
    penalty = alpha * math.log(classes) * (own - temperature) ** 2 / (2 * temperature)
    return ldr(f, p, y, temperature=own, margin=margin) - penalty


def z(f: torch.Tensor, p: torch.Tensor, y: torch.Tensor, *, a: float, b: float, eps: float) -> torch.Tensor:
    score = torch.nn.functional.layer_norm(f, f.shape[-1:], eps=eps)
    return (p * torch.log1p(torch.exp(a * (b - score))) / a).sum(-1)


def mse(f: torch.Tensor, p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.mse_loss(SUPPORT.expectation(torch.softmax(f, -1)), y.clamp(-2, 3), reduction="none")


def huber(f: torch.Tensor, p: torch.Tensor, y: torch.Tensor, *, delta: float) -> torch.Tensor:
    value = SUPPORT.expectation(torch.softmax(f, -1))
    return torch.nn.functional.huber_loss(value, y.clamp(-2, 3), reduction="none", delta=delta)


@dataclass(frozen=True)
class Case:
    """A loss, the formula that it stands for, and parameters."""

    loss: Loss
    formula: Callable[..., torch.Tensor]
    parameters: dict[str, Any]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.loss(*arguments, **self.parameters, **options)

    @property
    def projects(self) -> bool:
        return self.loss not in (mse_loss, huber_loss)


CASES = (
    *(Case(comp_sum_loss, comp_sum, {"tau": tau}) for tau in (0, 0.5, 1, 1 + 1e-9, 1.5, 2)),
    *(Case(generalised_cross_entropy_loss, generalised, {"q": q}) for q in (0.7, 1)),
    Case(symmetric_cross_entropy_loss, symmetric, {"alpha": 0.3, "beta": 0.8, "log_zero": -4}),
    Case(symmetric_cross_entropy_loss, symmetric, {"alpha": 0, "beta": 1, "log_zero": -2}),
    Case(label_smoothed_loss, smoothed, {"epsilon": 0.2}),
    Case(ldr_kl_loss, ldr, {"temperature": 0.6, "margin": 0}),
    Case(ldr_kl_loss, ldr, {"temperature": 2.5, "margin": 1.5}),
    Case(aldr_kl_loss, aldr, {"temperature": 1.2, "alpha": 2, "margin": 0.4, "steps": 3}),
    Case(z_loss, z, {"a": 1.5, "b": 0.7, "eps": 1e-5}),
    Case(mse_loss, mse, {}),
    Case(huber_loss, huber, {"delta": 0.8}),
)


def name_of(case: object) -> str:
    return f"{case.loss.__name__}-{case.parameters}" if isinstance(case, Case) else str(case)


each_case = pytest.mark.parametrize("case", CASES, ids=name_of)


def samples(n: int = 6, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, targets (some out of range) and weights."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, SUPPORT.bins, generator=generator, dtype=torch.float64)
    target = 3 * torch.randn(n, generator=generator, dtype=torch.float64)
    weight = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1
    return logits.to(dtype).requires_grad_(), target.to(dtype), weight.to(dtype)


def gradient_of(loss: torch.Tensor, logits: torch.Tensor, upstream: torch.Tensor | None = None) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(loss, logits, upstream)
    return gradient


def test_every_loss_is_here() -> None:
    assert {case.loss.__name__ for case in CASES} == set(robust.__all__)


@pytest.mark.parametrize("projection", ["hl_gauss", "two_hot", "one_hot"])
@each_case
def test_loss_and_gradient_are_those_of_the_formula(case: Case, projection: Projection) -> None:
    options = {"projection": projection} if case.projects else {}
    logits, target, _ = samples()
    p = target_probabilities(target, SUPPORT, projection)
    wanted = case.formula(logits, p, target, **case.parameters)
    loss, stats = case(logits, target, SUPPORT, reduction="none", return_stats=True, **options)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(stats.loss, wanted)
    upstream = torch.linspace(-1, 2, 6, dtype=torch.float64)
    torch.testing.assert_close(gradient_of(loss, logits, upstream), gradient_of(wanted, logits, upstream))


@each_case
def test_gradient_against_finite_differences(case: Case) -> None:
    if case.loss is aldr_kl_loss:
        # With the temperature as a constant its gradient is a total derivative only where the steps have converged.
        case = Case(case.loss, case.formula, {**case.parameters, "alpha": 4, "margin": 0, "steps": 60})
    logits, target, weight = samples(3)
    assert torch.autograd.gradcheck(lambda f: case(f, target, SUPPORT, weight=weight, reduction="none"), (logits,))


@pytest.mark.parametrize("transform", ["symlog", "symexp"])
@pytest.mark.parametrize("loss", [mse_loss, huber_loss])
def test_expectations_of_transformed_supports(loss: Loss, transform: Any) -> None:
    support = Support(-2.0, 3.0, 11, transform=transform)
    logits, target, _ = samples(4)
    target = 4 * target
    assert torch.autograd.gradcheck(lambda f: loss(f, target, support, reduction="none"), (logits,))
    value, stats = loss(logits, target, support, reduction="none", return_stats=True)
    error = support.expectation(torch.softmax(logits, -1)) - target.clamp(support.lowest, support.highest)
    torch.testing.assert_close(stats.td_error, error.detach())
    wanted = error.square() if loss is mse_loss else torch.where(error.abs() < 1, error.square() / 2, error.abs() - 0.5)
    torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@each_case
def test_reductions(case: Case, reduction: Reduction, weighted: bool) -> None:
    logits, target, all_weights = samples()
    weight = all_weights if weighted else None
    w = all_weights if weighted else torch.ones(6, dtype=torch.float64)
    single = torch.stack([case(logits[i], target[i], SUPPORT) for i in range(6)])
    wanted = {
        "none": w * single,
        "sum": (w * single).sum(),
        "mean": (w * single).sum() / 6,
        "weighted_mean": (w * single).sum() / w.sum(),
    }[reduction]
    loss = case(logits, target, SUPPORT, weight=weight, reduction=reduction)
    torch.testing.assert_close(loss, wanted)
    upstream = torch.linspace(-1, 2, 6, dtype=w.dtype) if reduction == "none" else torch.tensor(3.0, dtype=w.dtype)
    torch.testing.assert_close(gradient_of(loss, logits, upstream), gradient_of(wanted, logits, upstream))


@pytest.mark.parametrize(
    ("loss", "parameters"),
    [
        (comp_sum_loss, {"tau": 1}),
        (generalised_cross_entropy_loss, {"q": 0}),
        (label_smoothed_loss, {"epsilon": 0}),
        (symmetric_cross_entropy_loss, {"alpha": 1, "beta": 0}),
    ],
)
def test_special_values_that_are_hl_gauss(loss: Loss, parameters: dict[str, float]) -> None:
    logits, target, weight = samples()
    wanted, wanted_stats = hl_gauss_loss(logits, target, SUPPORT, weight=weight, return_stats=True)
    found, stats = loss(logits, target, SUPPORT, weight=weight, return_stats=True, **parameters)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient_of(found, logits), gradient_of(wanted, logits))
    for name in HLGaussStats.__dataclass_fields__:
        torch.testing.assert_close(getattr(stats, name), getattr(wanted_stats, name))
        assert not getattr(stats, name).requires_grad


def test_limits_of_the_temperature() -> None:
    logits, target, _ = samples()
    p = target_probabilities(target, SUPPORT)
    plain = hl_gauss_loss(logits, target, SUPPORT, reduction="none")
    torch.testing.assert_close(ldr_kl_loss(logits, target, SUPPORT, reduction="none"), plain - math.log(11))
    difference = logits.unsqueeze(-2) - logits.unsqueeze(-1) + 0.5 * (1 - torch.eye(11, dtype=torch.float64))
    for temperature, wanted in ((1e-6, difference.amax(-1)), (1e7, difference.mean(-1))):
        found = ldr_kl_loss(logits, target, SUPPORT, temperature=temperature, margin=0.5, reduction="none")
        torch.testing.assert_close(found, (p * wanted).sum(-1), rtol=1e-5, atol=1e-5)


def test_adaptive_temperatures() -> None:
    """Their limits, and that the loss is the greatest over all temperatures."""
    logits, target, _ = samples()
    fixed = ldr_kl_loss(logits, target, SUPPORT, temperature=0.8, margin=0.3, reduction="none")
    for parameters in ({"steps": 0}, {"alpha": 1e12}):
        found = aldr_kl_loss(logits, target, SUPPORT, temperature=0.8, margin=0.3, reduction="none", **parameters)
        torch.testing.assert_close(found, fixed)
    stiffness = 4 * math.log(11)
    adaptive = aldr_kl_loss(logits, target, SUPPORT, alpha=4, steps=60, reduction="none")
    others = torch.stack(
        [
            ldr_kl_loss(logits, target, SUPPORT, temperature=t, reduction="none") - stiffness * (t - 1) ** 2 / 2
            for t in torch.linspace(0.74, 1.01, 500).tolist()
        ]
    )
    torch.testing.assert_close(others.amax(0), adaptive, rtol=0, atol=1e-5)
    assert bool((others <= adaptive + 1e-12).all())


def test_the_z_loss_sees_neither_shift_nor_scale() -> None:
    logits, target, _ = samples()
    wanted = z_loss(logits, target, SUPPORT, eps=0, reduction="none")
    gradient = gradient_of(wanted.sum(), logits)
    for shift, scale in ((7.0, 1.0), (0.0, 1e-3), (-1e3, 1e4)):
        moved = (scale * logits + shift).detach().requires_grad_()
        loss = z_loss(moved, target, SUPPORT, eps=0, reduction="none")
        torch.testing.assert_close(loss, wanted)
        torch.testing.assert_close(scale * gradient_of(loss.sum(), moved), gradient, rtol=1e-5, atol=1e-9)
    assert bool(z_loss(torch.zeros(1, 11), torch.zeros(1), SUPPORT, eps=0).isnan())
    assert z_loss(torch.zeros(1, 11), torch.zeros(1), SUPPORT, a=2, b=0.5).item() == pytest.approx(
        math.log1p(math.e) / 2, rel=1e-6
    )


@pytest.mark.parametrize(
    ("loss", "parameters", "optimum"),
    [
        (comp_sum_loss, {"tau": 0}, lambda p: p**0.5),
        (comp_sum_loss, {"tau": 1.5}, lambda p: p**2),
        (ldr_kl_loss, {"temperature": 2}, lambda p: p**2),
        (label_smoothed_loss, {"epsilon": 0.3}, lambda p: 0.7 * p + 0.3 / 11),
    ],
)
def test_where_the_docstrings_say_that_the_loss_is_least(
    loss: Loss, parameters: dict[str, float], optimum: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    _, target, _ = samples()
    best = optimum(target_probabilities(target, SUPPORT)).log().requires_grad_()
    least = loss(best, target, SUPPORT, reduction="none", **parameters)
    torch.testing.assert_close(gradient_of(least.sum(), best), torch.zeros_like(best), rtol=0, atol=1e-12)
    nearby = loss(best + 0.1 * torch.randn(6, 11, dtype=best.dtype), target, SUPPORT, reduction="none", **parameters)
    assert bool((nearby > least).all())


@each_case
def test_samples_of_weight_zero_count_for_nothing(case: Case) -> None:
    logits, target, weight = samples(dtype=torch.float32)
    target = target.clamp(-2, 3)
    weight[2] = weight[4] = 0
    dirty, bad_target = logits.detach().clone(), target.clone()
    dirty[2], dirty[4] = math.nan, math.inf
    bad_target[2], bad_target[4] = math.nan, 1e9
    dirty.requires_grad_()
    wanted = case(logits, target, SUPPORT, weight=weight, out_of_range="error")
    loss, stats = case(dirty, bad_target, SUPPORT, weight=weight, out_of_range="error", return_stats=True)
    assert torch.equal(loss, wanted)
    assert stats.clipped.item() == 0
    gradient = gradient_of(loss, dirty)
    assert torch.equal(gradient, gradient_of(wanted, logits))
    assert bool((gradient[[2, 4]] == 0).all())


@each_case
def test_nan_logits_poison_their_own_row_only(case: Case) -> None:
    logits, target, _ = samples(dtype=torch.float32)
    dirty = logits.detach().clone()
    dirty[3, 5] = math.nan
    dirty.requires_grad_()
    clean_loss = case(logits, target, SUPPORT, reduction="none")
    loss = case(dirty, target, SUPPORT, reduction="none")
    clean_gradient, gradient = gradient_of(clean_loss.sum(), logits), gradient_of(loss.sum(), dirty)
    others = [0, 1, 2, 4, 5]
    assert loss.isnan().tolist() == [i == 3 for i in range(6)]
    assert torch.equal(loss[others], clean_loss[others])
    assert torch.equal(gradient[others], clean_gradient[others])
    assert bool(gradient[3].isnan().all())


@pytest.mark.parametrize("size", [1e4, -1e4, 1e30])
@each_case
def test_extreme_logits(case: Case, size: float) -> None:
    """Rows that are all alike give what zeros give; one that is certain and wrong stays finite where it can."""
    target = torch.tensor([0.4])
    plain = case(torch.zeros(1, 11), target, SUPPORT)
    torch.testing.assert_close(case(torch.full((1, 11), size), target, SUPPORT), plain)
    peaked = torch.zeros(1, 11)
    peaked[0, 0] = abs(size)
    peaked.requires_grad_()
    loss = case(peaked, target, SUPPORT)
    if case.loss is comp_sum_loss and case.parameters["tau"] < 1:
        assert loss.item() == math.inf
    else:
        assert bool(loss.isfinite())
        assert bool(gradient_of(loss, peaked).isfinite().all())


@each_case
def test_masked_bins_without_mass(case: Case) -> None:
    if case.loss is label_smoothed_loss or case.loss is z_loss:
        pytest.skip("every bin has mass or counts in the row's scale: said in the docstrings")
    logits = torch.zeros(1, 11)
    logits[0, 8:] = -math.inf
    logits.requires_grad_()
    options: dict[str, Any] = {"projection": "two_hot"} if case.projects else {}
    loss = case(logits, torch.tensor([-1.0]), SUPPORT, **options)
    assert bool(loss.isfinite())
    gradient = gradient_of(loss, logits)
    assert bool(gradient.isfinite().all())
    assert bool((gradient[0, 8:] == 0).all())


@pytest.mark.parametrize("margin_in_temperatures", [50.0, 1e3])
def test_margins_of_many_temperatures(margin_in_temperatures: float) -> None:
    """The paper's sum of exponentials overflows float32 there; the loss is still that of float64."""
    logits, target, _ = samples(dtype=torch.float32)
    margin = 0.01 * margin_in_temperatures
    exact = logits.detach().double().requires_grad_()
    loss = ldr_kl_loss(logits, target, SUPPORT, temperature=0.01, margin=margin, reduction="none")
    p = target_probabilities(target, SUPPORT, dtype=torch.float64)
    wanted = ldr(exact, p, target, temperature=0.01, margin=margin)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        gradient_of(loss.sum(), logits).double(), gradient_of(wanted.sum(), exact), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each_case
def test_half_precision_and_autocast(case: Case, dtype: torch.dtype) -> None:
    logits, target, _ = samples(dtype=torch.float32)
    half = logits.detach().to(dtype).requires_grad_()
    exact = half.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = case(half, target, SUPPORT)
    wanted = case(exact, target, SUPPORT)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, wanted)
    assert torch.equal(gradient_of(loss, half), gradient_of(wanted, exact).to(dtype))


@each_case
def test_shapes_strides_and_empty_batches(case: Case) -> None:
    logits, target, weight = samples(12)
    wanted = case(logits, target, SUPPORT, weight=weight, reduction="none")
    shaped = (logits.reshape(3, 4, 11), target.reshape(3, 4), SUPPORT)
    cube = case(*shaped, weight=weight.reshape(3, 4), reduction="none")
    torch.testing.assert_close(cube, wanted.reshape(3, 4))
    columns = logits.detach().t().contiguous().t()
    torch.testing.assert_close(case(columns, target, SUPPORT, weight=weight, reduction="none"), wanted)
    assert case(torch.zeros(0, 11), torch.zeros(0), SUPPORT, reduction="sum").item() == 0
    assert math.isnan(case(torch.zeros(0, 11), torch.zeros(0), SUPPORT).item())


@each_case
def test_backward_twice_and_second_derivatives(case: Case) -> None:
    logits, target, _ = samples()
    loss = case(logits, target, SUPPORT)
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (second,) = torch.autograd.grad(loss, logits, create_graph=True)
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(logits.sum() + second.square().sum(), logits)


def bad_parameters() -> Sequence[Any]:
    return [
        (comp_sum_loss, {"tau": 2.1}, r"tau is 2\.1: it must be finite, at least 0 and at most 2"),
        (comp_sum_loss, {"tau": math.nan}, "tau is nan"),
        (generalised_cross_entropy_loss, {"q": -0.1}, r"q is -0\.1: it must be finite, at least 0 and at most 1"),
        (symmetric_cross_entropy_loss, {"alpha": -1}, "alpha is -1"),
        (symmetric_cross_entropy_loss, {"beta": math.inf}, "beta is inf"),
        (symmetric_cross_entropy_loss, {"log_zero": 0.0}, r"log_zero is 0\.0: it must be finite and below 0"),
        (label_smoothed_loss, {"epsilon": 1.5}, r"epsilon is 1\.5"),
        (ldr_kl_loss, {"temperature": 0.0}, r"temperature is 0\.0: it must be finite, above 0"),
        (ldr_kl_loss, {"margin": -1}, "margin is -1"),
        (aldr_kl_loss, {"alpha": 1.0}, r"alpha is 1\.0: it must be finite, above 1"),
        (aldr_kl_loss, {"steps": -1}, "steps is -1"),
        (z_loss, {"a": 0.0}, r"a is 0\.0: it must be finite, above 0"),
        (z_loss, {"b": math.inf}, "b is inf: it must be finite"),
        (z_loss, {"eps": -1e-9}, "eps is -1e-09"),
        (huber_loss, {"delta": 0.0}, r"delta is 0\.0"),
    ]


@pytest.mark.parametrize(("loss", "parameters", "named"), bad_parameters())
def test_bad_parameters_are_named(loss: Loss, parameters: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        loss(torch.zeros(4, 11), torch.zeros(4), SUPPORT, **parameters)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"logits": torch.zeros(4, 10)}, r"logits have shape \(4, 10\).*support's 11 bins"),
        ({"target": torch.zeros(4, 1)}, r"target has shape \(4, 1\)"),
        ({"target": torch.tensor([0, 7.0, 0, 0]), "out_of_range": "error"}, r"target has 1 of 4 outside"),
        ({"target": torch.full((4,), math.nan)}, "target has 4 NaN of 4"),
        ({"weight": torch.ones(3)}, r"weight has shape \(3,\)"),
        ({"reduction": "average"}, "reduction is 'average'"),
    ],
)
@each_case
def test_bad_arguments_are_named(case: Case, changed: dict[str, Any], named: str) -> None:
    arguments: dict[str, Any] = {"logits": torch.zeros(4, 11), "target": torch.zeros(4), "support": SUPPORT, **changed}
    with pytest.raises(ValueError, match=named):
        case(**arguments)
