"""What every value head is put through, whatever its form and kind.

A test module subclasses `ValueHeadSuite` and gives the fixture ``case``: a head in float64 with random weights, and
hidden features for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch

from isogon.kernels import symexp
from isogon.learners.values import Hidden, ValueHead, features


@dataclass(frozen=True)
class Case:
    """A head to test, hidden features of some states, its number of actions, and targets that it can learn."""

    head: ValueHead
    hidden: Hidden
    actions: int
    low: float
    high: float

    @property
    def states(self) -> int:
        return features(self.hidden).shape[0]

    @property
    def hidden_size(self) -> int:
        return features(self.hidden).shape[1]

    def pairs(self, count: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows, actions and targets in the range."""
        generator = torch.Generator().manual_seed(7)
        row = torch.randint(self.states, (count,), generator=generator)
        action = torch.randint(self.actions, (count,), generator=generator)
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        return row, action, self.low + (self.high - self.low) * share

    def with_features(self, values: torch.Tensor) -> Hidden:
        """Hidden with other features and the rest as it is."""
        return {**self.hidden, "features": values} if isinstance(self.hidden, Mapping) else values


def decoded(head: ValueHead, logits: torch.Tensor) -> torch.Tensor:
    """What outputs ``[..., W]`` are worth, written out anew."""
    support = head.kind.support
    if support is None:
        return logits[..., 0]
    odds = torch.exp(logits - logits.max(-1, keepdim=True).values)
    p = odds / odds.sum(-1, keepdim=True)
    if support.transform == "symlog":
        return symexp((p * support.grid_centres(dtype=torch.float64)).sum(-1))
    return (p * support.centres(dtype=torch.float64)).sum(-1)


def brute_force_values(case: Case) -> torch.Tensor:
    """``[B, A]``, from the outputs of one pair at a time."""
    rows = []
    for state in range(case.states):
        pairs = [
            case.head.form.logits(case.hidden, torch.tensor([state]), torch.tensor([action]))
            for action in range(case.actions)
        ]
        rows.append(decoded(case.head, torch.cat(pairs)))
    return torch.stack(rows)


class ValueHeadSuite:
    @pytest.fixture
    def case(self) -> Case:
        raise NotImplementedError

    def test_values_are_those_of_single_pairs(self, case: Case) -> None:
        values = case.head.values(case.hidden)
        assert values.shape == (case.states, case.actions)
        assert values.std() > 1e-3
        torch.testing.assert_close(values, brute_force_values(case))

    def test_values_are_made_in_chunks(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted = case.head.values(case.hidden)
        width = case.head.form.width
        monkeypatch.setattr("isogon.learners.values.forms._CHUNK_ELEMENTS", 2 * case.states * width)
        seen = []

        def decode(logits: torch.Tensor) -> torch.Tensor:
            seen.append(logits.shape)
            return case.head.kind.value(logits)

        torch.testing.assert_close(case.head.form.values(case.hidden, decode), wanted)
        assert set(seen) <= {(case.states, 2, width), (case.states, 1, width)}
        assert len(seen) == (case.actions + 1) // 2

    def test_chosen_and_shared_values_agree_with_all_values(self, case: Case) -> None:
        values = case.head.values(case.hidden)
        own = torch.randint(case.actions, (case.states, 3), generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(case.head.values_at(case.hidden, own), values.gather(1, own))
        shared = torch.tensor([case.actions - 1, 0, 2, 2])
        torch.testing.assert_close(case.head.values_shared(case.hidden, shared), values[:, shared])

    def test_shared_values_have_gradients(self, case: Case) -> None:
        actions = torch.tensor([0, case.actions - 1])
        x = features(case.hidden).detach().clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda values: case.head.values_shared(case.with_features(values), actions), (x,)
        )

    def test_distributions_have_the_values_as_means(self, case: Case) -> None:
        action = torch.arange(case.states) % case.actions
        support = case.head.kind.support
        if support is None:
            with pytest.raises(ValueError, match="'mse', which predicts no distribution"):
                case.head.distribution(case.hidden, action)
            return
        p = case.head.distribution(case.hidden, action)
        assert p.shape == (case.states, support.bins)
        torch.testing.assert_close(p.sum(-1), torch.ones(case.states, dtype=torch.float64))
        wanted = case.head.values(case.hidden).gather(1, action.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(support.expectation(p), wanted)

    def test_preferences_rank_as_values_do(self, case: Case) -> None:
        preferences = case.head.form.preferences(case.hidden, case.head.kind.value)
        sorted_values = case.head.values(case.hidden).gather(1, preferences.argsort(1))
        assert bool((sorted_values.diff(dim=1) > 0).all())
        torch.testing.assert_close(
            case.head.form.values_of(case.hidden, preferences, case.head.kind.value), case.head.values(case.hidden)
        )

    def test_best_is_the_highest_legal_value(self, case: Case) -> None:
        values = case.head.values(case.hidden)
        value, action = case.head.best(case.hidden)
        torch.testing.assert_close(value, values.max(1).values)
        assert torch.equal(action, values.argmax(1))
        legal = torch.ones_like(values, dtype=torch.bool).scatter(1, action.unsqueeze(1), False)
        value, action = case.head.best(case.hidden, legal)
        masked = values.masked_fill(~legal, -torch.inf)
        torch.testing.assert_close(value, masked.max(1).values)
        assert torch.equal(action, masked.argmax(1))
        assert value.shape == action.shape == (case.states,)
        assert action.dtype == torch.int64

    @pytest.mark.parametrize("seed", range(4))
    def test_top_gives_legal_actions_while_there_are_any(self, case: Case, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        legal = torch.rand(case.states, case.actions, generator=generator) < 0.4
        legal[torch.arange(case.states), torch.randint(case.actions, (case.states,), generator=generator)] = True
        values = case.head.values(case.hidden).masked_fill(~legal, -torch.inf)
        k = case.actions - 1
        top_values, top_actions = case.head.top(case.hidden, legal, k)
        torch.testing.assert_close(top_values, values.sort(1, descending=True).values[:, :k])
        torch.testing.assert_close(values.gather(1, top_actions), top_values)
        assert all(len(set(row)) == k for row in top_actions.tolist())
        best_value, best_action = case.head.best(case.hidden, legal)
        torch.testing.assert_close(best_value, top_values[:, 0])
        assert torch.equal(best_action, top_actions[:, 0])

    def test_top_without_a_mask_sorts_all_actions(self, case: Case) -> None:
        values, actions = case.head.top(case.hidden, None, case.actions)
        wanted = case.head.values(case.hidden).sort(1, descending=True)
        torch.testing.assert_close(values, wanted.values)
        assert torch.equal(actions, wanted.indices)

    def test_bad_masks_and_counts_are_named(self, case: Case) -> None:
        legal = torch.ones(case.states, case.actions, dtype=torch.bool)
        legal[1] = False
        with pytest.raises(ValueError, match=f"legal has no action in 1 of {case.states} states"):
            case.head.best(case.hidden, legal)
        with pytest.raises(ValueError, match="legal has no action in 1"):
            case.head.top(case.hidden, legal, 1)
        with pytest.raises(ValueError, match=r"legal is torch\.float32"):
            case.head.best(case.hidden, legal.float())
        with pytest.raises(ValueError, match=r"legal is torch\.bool \(1, "):
            case.head.best(case.hidden, legal[:1])
        for k in (0, case.actions + 1):
            with pytest.raises(ValueError, match=f"k is {k}: it must be from 1 to the {case.actions} actions"):
                case.head.top(case.hidden, None, k)

    def test_loss_reports_values_and_errors(self, case: Case) -> None:
        row, action, target = case.pairs()
        result = case.head.loss(case.hidden, row, action, target)
        values = case.head.values(case.hidden)[row, action]
        torch.testing.assert_close(result.value, values)
        torch.testing.assert_close(result.td_error, values - target)
        assert result.loss.shape == row.shape
        assert result.clipped.item() == 0
        assert not result.value.requires_grad
        assert not result.td_error.requires_grad

    def test_loss_gradient_in_hidden(self, case: Case) -> None:
        row, action, target = case.pairs()
        weight = torch.linspace(0.2, 2, len(row), dtype=torch.float64)
        x = features(case.hidden).detach().clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda values: case.head.loss(case.with_features(values), row, action, target, weight).loss, (x,)
        )

    def test_every_parameter_takes_part_in_the_loss(self, case: Case) -> None:
        row, action, target = case.pairs()
        loss = case.head.loss(case.hidden, row, action, target).loss.mean()
        names, parameters = zip(*case.head.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        assert [name for name, gradient in zip(names, gradients, strict=True) if gradient is None] == []

    def test_weights_act_before_the_sum(self, case: Case) -> None:
        row, action, target = case.pairs()
        weight = torch.linspace(0, 3, len(row), dtype=torch.float64)
        plain = case.head.loss(case.hidden, row, action, target)
        weighted = case.head.loss(case.hidden, row, action, target, weight)
        torch.testing.assert_close(weighted.loss, weight * plain.loss)
        torch.testing.assert_close(weighted.value[1:], plain.value[1:])
        torch.testing.assert_close(weighted.td_error[1:], plain.td_error[1:])
        parameters = list(case.head.parameters())
        gradients = torch.autograd.grad(weighted.loss.sum(), parameters)
        singly = [
            torch.autograd.grad(case.head.loss(case.hidden, row[[i]], action[[i]], target[[i]]).loss.sum(), parameters)
            for i in range(len(row))
        ]
        for j, gradient in enumerate(gradients):
            torch.testing.assert_close(gradient, sum(w * g[j] for w, g in zip(weight, singly, strict=True)))

    def test_pairs_of_weight_zero_may_have_any_target(self, case: Case) -> None:
        row, action, target = case.pairs()
        weight = torch.ones_like(target)
        weight[4] = 0
        spoilt = target.clone()
        spoilt[4] = torch.nan
        wanted = case.head.loss(case.hidden, row, action, target, weight)
        result = case.head.loss(case.hidden, row, action, spoilt, weight)
        assert torch.equal(result.loss, wanted.loss)
        assert result.clipped.item() == 0
        x = list(case.head.parameters())
        for a, b in zip(
            torch.autograd.grad(result.loss.sum(), x), torch.autograd.grad(wanted.loss.sum(), x), strict=True
        ):
            assert torch.equal(a, b)

    def test_targets_outside_the_range_are_counted(self, case: Case) -> None:
        row, action, target = case.pairs()
        support = case.head.kind.support
        if support is None:
            assert case.head.loss(case.hidden, row, action, 100 * target).clipped.item() == 0
            target[2] = torch.inf
            with pytest.raises(ValueError, match="target has 1 infinite of 9"):
                case.head.loss(case.hidden, row, action, target)
            return
        clamped = target.clone()
        target[0], target[3], target[8] = support.highest + 1, -torch.inf, support.lowest - 1
        clamped[0], clamped[3], clamped[8] = support.highest, support.lowest, support.lowest
        result = case.head.loss(case.hidden, row, action, target)
        at_ends = case.head.loss(case.hidden, row, action, clamped)
        assert (result.clipped.item(), at_ends.clipped.item()) == (3, 0)
        torch.testing.assert_close(result.loss, at_ends.loss)
        torch.testing.assert_close(result.td_error, at_ends.td_error)

    def test_it_learns_a_constant(self, case: Case) -> None:
        """Every pair's value goes to a target in the interior."""
        goal = case.low + 0.6 * (case.high - case.low)
        row = torch.arange(case.states).repeat_interleave(case.actions)
        action = torch.arange(case.actions).repeat(case.states)
        target = torch.full(row.shape, goal, dtype=torch.float64)
        optimiser = torch.optim.Adam(case.head.parameters(), lr=0.1)
        for step in range(300):
            optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
            optimiser.zero_grad()
            torch.autograd.backward(case.head.loss(case.hidden, row, action, target).loss.mean())
            optimiser.step()
        tolerance = 0.02 * (case.high - case.low)
        torch.testing.assert_close(
            case.head.values(case.hidden).flatten(), target, rtol=0, atol=tolerance, msg=lambda m: f"goal {goal}: {m}"
        )

    def test_bad_pairs_are_named(self, case: Case) -> None:
        row, action, target = case.pairs()
        for arguments, named in (
            ((row.int(), action, target), r"row is torch\.int32"),
            ((row, action.unsqueeze(1), target), r"action is torch\.int64 \(9, 1\)"),
            ((row, action[:8], target), r"action has shape \(8,\)"),
            ((row, action, target.unsqueeze(1)), r"target has shape \(9, 1\)"),
            ((row, action, target.long()), r"target has dtype torch\.int64"),
            ((row, action, target.requires_grad_()), "target requires a gradient"),
        ):
            with pytest.raises(ValueError, match=named):
                case.head.loss(case.hidden, *arguments)
        for bad in (-1, case.actions):
            with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)|action has values"):
                case.head.loss(case.hidden, row, torch.full_like(action, bad), target.detach())
        target = target.detach().clone()
        target[3] = torch.nan
        with pytest.raises(ValueError, match="target has 1 NaN of 9"):
            case.head.loss(case.hidden, row, action, target)
        with pytest.raises(ValueError, match="weight has shape"):
            case.head.loss(case.hidden, row, action, target, torch.ones(1))
