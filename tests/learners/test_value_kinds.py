import pytest
import torch

from isogon.kernels import Support, categorical_loss, hl_gauss_loss, project_categorical, target_probabilities
from isogon.learners.values import C51, Categorical, CategoricalTarget, MeanSquared, SoftmaxMeanSquared

EDGES = Support(-2.0, 3.0, 11)
ATOMS = Support(-2.0, 3.0, 11, anchor="atoms")


def outputs(width: int = 11) -> torch.Tensor:
    return torch.randn(4, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


TARGET = torch.tensor([-1.5, 0.0, 0.3, 2.9], dtype=torch.float64)


def test_losses_are_what_their_names_say() -> None:
    logits = outputs()
    torch.testing.assert_close(
        Categorical(EDGES, "hl_gauss").loss(logits, TARGET, None).loss,
        hl_gauss_loss(logits, TARGET, EDGES, reduction="none"),
    )
    two_hot = -(target_probabilities(TARGET, ATOMS, "two_hot") * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(Categorical(ATOMS, "two_hot").loss(logits, TARGET, None).loss, two_hot)
    torch.testing.assert_close(C51(ATOMS).loss(logits, TARGET, None).loss, two_hot)
    expectation = logits.softmax(-1) @ EDGES.centres(dtype=torch.float64)
    torch.testing.assert_close(
        SoftmaxMeanSquared(EDGES).loss(logits, TARGET, None).loss, (expectation - TARGET).square()
    )
    number = outputs(1)
    torch.testing.assert_close(MeanSquared().loss(number, TARGET, None).loss, (number[:, 0] - TARGET).square())


@pytest.mark.parametrize("weighted", [False, True])
def test_c51_learns_from_distributions(weighted: bool) -> None:
    logits = outputs().requires_grad_()
    weight = torch.tensor([0.5, 2.0, 1.0, 0.0], dtype=torch.float64) if weighted else None
    target = CategoricalTarget(
        reward=torch.tensor([0.1, -0.4, 9.0, 0.5], dtype=torch.float64),
        discount=torch.tensor([0.9, 0.0, 0.9, 0.5], dtype=torch.float64),
        probabilities=torch.softmax(outputs().flip(0), -1),
    )
    kind = C51(ATOMS)
    result = kind.loss(logits, target, weight)
    projected = project_categorical(target.reward, target.discount, target.probabilities, ATOMS)
    torch.testing.assert_close(result.loss, categorical_loss(logits, projected, weight=weight, reduction="none"))
    assert result.clipped.item() == 1
    torch.testing.assert_close(result.value[:3], kind.value(logits).detach()[:3])
    means = projected @ ATOMS.centres(dtype=torch.float64)
    torch.testing.assert_close(result.td_error[:3], (result.value - means)[:3])
    assert means[2] == 3.0
    if weight is not None:
        spoilt = CategoricalTarget(target.reward.clone(), target.discount, target.probabilities)
        spoilt.reward[3] = torch.nan
        assert torch.equal(kind.loss(logits, spoilt, weight).loss, result.loss)
    assert torch.autograd.gradcheck(lambda x: kind.loss(x, target, weight).loss, (logits,))
    with pytest.raises(ValueError, match=r"target has 1 of 4 outside \[-2\.0, 3\.0\]"):
        C51(ATOMS, out_of_range="error").loss(logits, target, weight)


def test_only_c51_learns_from_distributions() -> None:
    target = CategoricalTarget(torch.zeros(4), torch.ones(4), torch.softmax(outputs(), -1))
    for kind in (Categorical(EDGES, "hl_gauss"), MeanSquared(), SoftmaxMeanSquared(EDGES)):
        with pytest.raises(ValueError, match="only the kind 'c51' learns from one"):
            kind.loss(outputs(kind.width), target, None)


@pytest.mark.parametrize("kind", [Categorical(EDGES, "hl_gauss", "error"), SoftmaxMeanSquared(EDGES, "error")])
def test_out_of_range_targets_are_refused_on_request(kind: Categorical | SoftmaxMeanSquared) -> None:
    with pytest.raises(ValueError, match="target has 1 of 4 outside"):
        kind.loss(outputs(), TARGET + 0.2, None)


def test_unreachable_softmax_targets_still_pull() -> None:
    logits = torch.zeros(1, 11, requires_grad=True)
    loss = SoftmaxMeanSquared(EDGES).loss(logits, torch.tensor([1e6]), None).loss
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert 0.1 < gradient.abs().max() < 10
