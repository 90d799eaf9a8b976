"""`hl_gauss_loss` and `categorical_loss` as users call them, by every implementation for the CPU: of chosen actions.

The numbers in names are groups of traps, as in `row_suite`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from isogon.kernels import (
    Impl,
    hl_gauss_loss,
)

from .fused_cases import FUSED, IMPLS, REDUCTIONS, SUPPORT, gradient_of, pairs, samples
from .row_cases import HALF


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("impl", FUSED)
def test_10_chosen_actions(impl: Impl, weighted: bool, dtype: torch.dtype) -> None:
    """Against the rows gathered by plain torch in float64."""
    _, target, weights = samples()
    logits, row, action = pairs()
    logits = (3 * logits).to(dtype).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    kept = (action >= 0).double()
    weight = weights if weighted else None
    both = kept if weight is None else kept * weight
    upstream = torch.linspace(-1, 2, 40)
    for reduction in REDUCTIONS:
        loss, stats = hl_gauss_loss(
            logits, target, SUPPORT, row=row, action=action, weight=weight, reduction=reduction, impl=impl,
            return_stats=True,
        )  # fmt: skip
        chosen = exact[row, action.clamp(min=0)]
        wanted, wanted_stats = hl_gauss_loss(
            chosen, target.double(), SUPPORT, weight=both, reduction=reduction, return_stats=True
        )
        torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(stats.value[both != 0].double(), wanted_stats.value[both != 0], rtol=0, atol=2e-5)
        assert torch.equal(stats.clipped, wanted_stats.clipped)
        factor = upstream if reduction == "none" else torch.tensor(1.0)
        gradient = gradient_of(loss, logits, factor)
        wanted_gradient = gradient_of(wanted, exact, factor.double())
        tolerance = 2e-6 if dtype == torch.float32 else torch.finfo(dtype).eps * float(wanted_gradient.abs().max())
        torch.testing.assert_close(gradient.double(), wanted_gradient, rtol=0, atol=tolerance)
        unread = torch.ones(9, 5, dtype=torch.bool)
        unread[row[both != 0], action[both != 0]] = False
        assert bool((gradient[unread] == 0).all())
        assert 4 < int(unread.sum()) < 45


@pytest.mark.parametrize("impl", IMPLS)
def test_10_pairs_out_of_range_are_named(impl: Impl) -> None:
    logits, row, action = pairs()
    target = torch.zeros(40)
    for name, index, wrong, told in (
        ("row", row, 9, "row has 9, of 9 states"),
        ("action", action, 5, "action has 5, of 5 actions"),
    ):
        changed = index.clone()
        changed[17] = wrong
        arguments: dict[str, Any] = {"row": row, "action": action, name: changed}
        with pytest.raises(ValueError, match=told):
            hl_gauss_loss(logits, target, SUPPORT, impl=impl, **arguments)
    with pytest.raises(ValueError, match="action is None"):
        hl_gauss_loss(logits, target, SUPPORT, impl=impl, row=row)
    with pytest.raises(ValueError, match=r"row is torch\.int32"):
        hl_gauss_loss(logits, target, SUPPORT, impl=impl, row=row.int(), action=action)
    with pytest.raises(ValueError, match=r"must be \[B, A, K\]"):
        hl_gauss_loss(logits[0], target, SUPPORT, impl=impl, row=row, action=action)
    with pytest.raises(ValueError, match=r"target has shape \(9,\)"):
        hl_gauss_loss(logits, target[:9], SUPPORT, impl=impl, row=row, action=action)


@pytest.mark.parametrize("impl", IMPLS)
def test_10_pairs_of_negative_row_or_action_are_left_out(impl: Impl) -> None:
    logits, row, action = pairs()
    logits = logits.detach().requires_grad_()
    target = torch.linspace(-9, 9, 40)
    weight = torch.ones(40)
    weight[[3, 17]] = 0
    wanted = hl_gauss_loss(logits, target, SUPPORT, row=row, action=action, weight=weight, impl=impl)
    wanted_gradient = gradient_of(wanted, logits)
    row[3], action[17] = -1, -2
    loss = hl_gauss_loss(logits, target, SUPPORT, row=row, action=action, impl=impl)
    assert torch.equal(loss, wanted)
    assert torch.equal(gradient_of(loss, logits), wanted_gradient)
