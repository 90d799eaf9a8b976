import pytest
import torch

from isogon.kernels import Support, target_probabilities
from isogon.learners.values import FullMap, LinearScorer, MeanSquared, Scorer, Tilt, ValueHead, features


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_full_map_is_a_linear_map_for_each_action() -> None:
    form = FullMap(3, 4, 5, seeded(), scale=1.0).double()
    torch.nn.init.normal_(form.bias, generator=seeded(1))
    hidden = torch.randn(2, 3, dtype=torch.float64)
    row, action = torch.tensor([1, 0, 1]), torch.tensor([3, 0, 0])
    wanted = torch.stack([form.weight[a] @ hidden[r] + form.bias[a] for r, a in zip(row, action, strict=True)])
    torch.testing.assert_close(form.logits(hidden, row, action), wanted)
    everything = torch.einsum("bd,awd->baw", hidden, form.weight) + form.bias
    torch.testing.assert_close(form.logits_shared(hidden, torch.arange(4)), everything)


def test_tilt_adds_score_times_centre() -> None:
    support = Support(-6.0, 0.0, 31)
    scorer = LinearScorer(3, 4, seeded(), scale=1.0, gain=0.5)
    form = Tilt(3, support, scorer, seeded(1), scale=1.0).double()
    hidden = torch.randn(2, 3, dtype=torch.float64)
    base = hidden @ form.base_weight.T + form.base_bias
    score = 0.5 * (hidden @ scorer.weight.T + scorer.bias)
    centres = torch.tensor([-6 + (k + 0.5) * 6 / 31 for k in range(31)], dtype=torch.float64)
    wanted = base[1] + score[1, 2] * centres
    torch.testing.assert_close(form.logits(hidden, torch.tensor([1]), torch.tensor([2]))[0], wanted)
    torch.testing.assert_close(form.logits_shared(hidden, torch.tensor([2]))[1, 0], wanted)


def test_tilt_gradient_in_the_score_is_predicted_minus_target_mean() -> None:
    support = Support(-6.0, 0.0, 31)
    centres = support.centres(dtype=torch.float64)
    base = torch.randn(31, dtype=torch.float64)
    score = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    p = target_probabilities(torch.tensor(-2.2, dtype=torch.float64), support)
    logits = base + score * centres
    (gradient,) = torch.autograd.grad(-(p * torch.log_softmax(logits, -1)).sum(), score)
    torch.testing.assert_close(gradient, torch.softmax(logits, -1) @ centres - p @ centres)


def test_tilted_value_rises_from_end_to_end_of_the_range() -> None:
    support = Support(-6.0, 0.0, 31)
    form = Tilt(2, support, LinearScorer(2, 101, seeded()), seeded(), scale=1.0).double()
    scores = torch.linspace(-200, 200, 101, dtype=torch.float64).expand(1, 101)
    values = form.values_of(
        torch.randn(1, 2, dtype=torch.float64), scores, lambda x: support.expectation(x.softmax(-1))
    )
    assert bool((values.diff() >= -1e-13).all())
    assert bool((values[0, 40:60].diff() > 0).all())
    assert values[0, 0].item() == pytest.approx(support.first_centre, abs=1e-6)
    assert values[0, -1].item() == pytest.approx(support.last_centre, abs=1e-6)


class CountingScorer(LinearScorer):
    """Counts how many pairs it is asked for."""

    asked = 0

    def pairs(self, hidden: object, row: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        self.asked += len(row)
        return super().pairs(hidden, row, action)  # type: ignore[arg-type]

    def all(self, hidden: object) -> torch.Tensor:
        raise AssertionError("the loss asked for all actions")


def test_tilt_loss_touches_only_its_pairs() -> None:
    scorer = CountingScorer(3, 2000, seeded())
    head = ValueHead(Tilt(3, None, scorer, seeded()), MeanSquared())
    head.loss(torch.randn(4, 3), torch.tensor([0, 3]), torch.tensor([5, 1999]), torch.zeros(2))
    assert scorer.asked == 2


def test_a_scorer_reads_hidden_as_a_whole() -> None:
    class Bonus(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(()))

        def all(self, hidden: object) -> torch.Tensor:
            assert isinstance(hidden, dict)
            bonus: torch.Tensor = hidden["bonus"]
            return self.gain * bonus

        def pairs(self, hidden: object, row: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
            return self.all(hidden)[row, action]

        def shared(self, hidden: object, actions: torch.Tensor) -> torch.Tensor:
            return self.all(hidden)[:, actions]

    scorer: Scorer = Bonus()
    head = ValueHead(Tilt(3, None, scorer, seeded(), scale=0.0), MeanSquared())
    bonus = torch.randn(2, 6)
    hidden = {"features": torch.randn(2, 3), "bonus": bonus}
    torch.testing.assert_close(head.values(hidden), bonus)
    assert torch.equal(head.best(hidden)[1], bonus.argmax(1))
    assert "form.scorer.gain" in dict(head.named_parameters())


def test_hidden_is_checked() -> None:
    x = torch.zeros(2, 3)
    assert features(x) is x
    assert features({"features": x, "more": torch.zeros(1)}) is x
    with pytest.raises(ValueError, match=r"hidden has the keys \['board'\]"):
        features({"board": x})
    with pytest.raises(ValueError, match=r"hidden features have shape \(2, 3, 1\)"):
        features(x.unsqueeze(-1))


def test_scorers_must_be_modules_and_widths_must_fit() -> None:
    class Plain:
        def pairs(self, hidden: object, row: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError

        def shared(self, hidden: object, actions: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError

        def all(self, hidden: object) -> torch.Tensor:
            raise NotImplementedError

    with pytest.raises(ValueError, match=r"scorer is a Plain: it must be an nn\.Module"):
        Tilt(3, None, Plain(), seeded())
    with pytest.raises(ValueError, match="form has width 5 and kind 1"):
        ValueHead(FullMap(3, 4, 5, seeded()), MeanSquared())
