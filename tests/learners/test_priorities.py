"""Prioritised sampling: against the probabilities and weights of Schaul et al. 2016, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isogon.learners.randomness import stream
from isogon.learners.replay import Replay
from isogon.learners.schedules import Schedule

from .source_suite import transitions


def replay(capacity: int, batch_size: int, exponent: float = 0.5, importance: float = 1.0) -> Replay:
    return Replay(
        capacity,
        batch_size,
        stream(0, "replay"),
        priority_exponent=exponent,
        importance_exponent=Schedule(kind="linear", start=0.4, end=importance),
    )


def filled(ring: Replay, count: int, seed: int = 0) -> Replay:
    ring.insert(transitions(count, seed, bootstrapped=True))
    return ring


ERRORS = torch.tensor([0.0, 1.0, 4.0, 9.0, -16.0])


def test_samples_are_in_proportion_to_errors_to_a_power() -> None:
    ring = filled(replay(5, 50_000), 5)
    ring.update_priorities(torch.arange(5), ERRORS)
    counts = torch.bincount(ring.next_batch(1.0)["index"], minlength=5).double()
    expected = (ERRORS.double().abs() + 1e-6) ** 0.5
    # Stratified samples stray less than independent ones: within one or two of the exact share.
    np.testing.assert_allclose(counts, 50_000 * expected / expected.sum(), atol=2)


@pytest.mark.parametrize(("progress", "beta"), [(0.0, 0.4), (0.5, 0.7), (1.0, 1.0)])
def test_weights_make_up_for_it(progress: float, beta: float) -> None:
    ring = filled(replay(4, 4000), 4)
    errors = torch.tensor([1.0, 4.0, 9.0, 16.0])
    ring.update_priorities(torch.arange(4), errors)
    batch = ring.next_batch(progress)
    probability = (errors.double() + 1e-6) ** 0.5
    probability /= probability.sum()
    expected = (4 * probability) ** -beta
    expected /= expected.max()
    assert batch["weight"].dtype == torch.float32
    torch.testing.assert_close(batch["weight"].double(), expected[batch["index"]], rtol=1e-6, atol=0)


def test_what_is_new_has_the_greatest_priority_there_was() -> None:
    ring = filled(replay(10, 10_000), 4)
    ring.update_priorities(torch.arange(4), torch.tensor([100.0, 0.0, 0.0, 0.0]))
    ring.update_priorities(torch.arange(4), torch.zeros(4))
    filled(ring, 2, seed=1)
    counts = torch.bincount(ring.next_batch()["index"], minlength=6)
    assert (counts[4:] > 4000).all()


def test_a_sample_that_is_not_there_any_more_changes_nothing_in_its_slot() -> None:
    ring = filled(replay(4, 1000), 4)
    index = torch.arange(4)
    filled(ring, 3, seed=1)
    ring.update_priorities(index, torch.tensor([0.0, 0.0, 0.0, 0.0]))
    counts = torch.bincount(ring.next_batch()["index"], minlength=7)
    # Of the old ones number 3 alone is left.
    assert counts[:3].sum() == 0
    assert counts[3] <= 2
    assert (counts[4:] > 300).all()
    ring.check_valid()


def test_errors_that_are_no_numbers_are_refused() -> None:
    ring = filled(replay(4, 2), 4)
    with pytest.raises(ValueError, match="a mass is nan"):
        ring.update_priorities(torch.arange(2), torch.tensor([1.0, np.nan]))


def test_a_state_of_another_capacity_keeps_the_newest_priorities() -> None:
    ring = filled(replay(6, 100), 6)
    ring.update_priorities(torch.arange(6), torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 9.0]))
    other = replay(2, 10_000)
    other.load_state_dict(ring.state_dict())
    other.check_valid()
    counts = torch.bincount(other.next_batch()["index"] - 4, minlength=2)
    np.testing.assert_allclose(counts / 10_000, [0.25, 0.75], atol=1e-3)
