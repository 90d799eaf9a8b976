"""What every `Learner` is put through.

A test module subclasses `LearnerSuite` and gives the fixture ``case``: how its learner is made, and batches for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pytest
import torch

from isogon.learners.batch import Batch
from isogon.learners.encodings import ArraySpec, EnvironmentSpec
from isogon.learners.learner import GREEDY, Learner, UpdateFailed
from isogon.learners.schedules import Schedule
from isogon.learners.state import decode_state, encode_state

WORDS = tuple("".join(map(chr, letters)) for letters in np.random.default_rng(0).integers(97, 123, size=(40, 5)))
"""Words that nobody has thought of, some with a letter twice."""

_BOARD = ArraySpec((6, 5), "int8")
WORDLE_SPEC = EnvironmentSpec("wordle", {"letters": _BOARD, "colours": _BOARD}, len(WORDS), True, WORDS)


class MakesLearners(Protocol):
    def __call__(self, *, seed: int, learning_rate: Schedule, warmup: int = 0) -> Learner:
        """A learner whose first weights and streams come of ``seed``."""
        ...


@dataclass(frozen=True)
class LearnerCase:
    """A learner to test: ``batch`` gives a batch for each seed, always of the same size."""

    make: MakesLearners
    batch: Callable[[int], Batch]

    def learner(self, seed: int = 0, rate: float = 3e-3) -> Learner:
        return self.make(seed=seed, learning_rate=Schedule(start=rate))


class LearnerSuite:
    def test_updates_lower_the_loss_of_a_batch(self, case: LearnerCase) -> None:
        learner, batch = case.learner(rate=1e-2), case.batch(0)
        before = float(learner.loss(batch).value.detach())
        assert learner.update(batch, 0.0).loss == pytest.approx(before, rel=0.2)
        for _ in range(60):
            learner.update(batch, 0.0)
        # Cross-entropy cannot fall below the targets' own entropy, so that what is asked for is a clear fall.
        assert float(learner.loss(batch).value.detach()) < 0.9 * before

    def test_loss_and_update_tell_the_td_error_of_each_pair(self, case: LearnerCase) -> None:
        learner, twin, batch = case.learner(), case.learner(), case.batch(0)
        loss = learner.loss(batch)
        pairs = len(batch.get("action", batch.get("action_tm1")))
        assert loss.td_error.shape == (pairs,)
        assert not loss.td_error.requires_grad
        # A learner with noisy layers has drawn its noise; the twin is about to draw the same.
        assert torch.equal(twin.update(batch, 0.0).td_error, loss.td_error)
        assert all(type(number) is float for number in loss.stats.values())

    def test_a_stored_state_goes_on_bitwise(self, case: LearnerCase) -> None:
        learner, restored = case.learner(0), case.learner(1)
        for seed in range(5):
            learner.update(case.batch(seed), seed / 20)
            restored.update(case.batch(seed + 50), 0.5)
        restored.load_state_dict(decode_state(*encode_state(learner.state_dict())))
        probe = case.batch(99)
        for seed in range(5, 15):
            one, other = (each.update(case.batch(seed), seed / 20) for each in (learner, restored))
            assert (one.loss, one.gradient_norm, one.learning_rate) == (
                other.loss,
                other.gradient_norm,
                other.learning_rate,
            )
        assert float(learner.loss(probe).value.detach()) == float(restored.loss(probe).value.detach())
        assert encode_state(learner.state_dict()) == encode_state(restored.state_dict())

    def test_a_first_state_begins_anew(self, case: LearnerCase) -> None:
        fresh, used = case.learner(0), case.learner(1)
        used.update(case.batch(0), 0.7)
        used.load_state_dict(fresh.state_dict())
        assert encode_state(used.state_dict()) == encode_state(fresh.state_dict())
        for each in (fresh, used):
            each.update(case.batch(1), 0.1)
        assert encode_state(used.state_dict()) == encode_state(fresh.state_dict())

    def test_a_state_is_a_copy_both_ways(self, case: LearnerCase) -> None:
        learner, other = case.learner(0), case.learner(1)
        learner.update(case.batch(0), 0.0)
        state = learner.state_dict()
        before = encode_state(state)
        other.load_state_dict(state)
        for each in (learner, other):
            each.update(case.batch(1), 0.0)
        assert encode_state(state) == before

    def test_shared_tensors_carry_what_was_learnt(self, case: LearnerCase) -> None:
        learner, other, batch = case.learner(0), case.learner(1), case.batch(0)
        for seed in range(5):
            learner.update(case.batch(seed), 0.0)
        crossed = {name: part.clone() for name, (part, _) in learner.shared().items()}
        other.load_shared(crossed)
        assert bits(other) == bits(learner)
        for part in crossed.values():
            part.zero_()
        assert bits(other) == bits(learner), "what crossed was copied"
        if "observation_t" not in batch:
            assert torch.equal(other.loss(batch).td_error, learner.loss(batch).td_error)

    def test_other_shared_tensors_are_refused_whole(self, case: LearnerCase) -> None:
        learner = case.learner()
        before = bits(learner)
        good = {name: torch.full_like(part, 0.5) for name, (part, _) in learner.shared().items()}
        last = list(good)[-1]
        for wrong in (
            good | {last: torch.zeros(*good[last].shape, 2)},
            good | {"stranger": torch.zeros(1)},
            {name: part for name, part in good.items() if name != last},
        ):
            with pytest.raises(ValueError, match=f"{last}|stranger"):
                learner.load_shared(wrong)
            assert bits(learner) == before

    def test_policy_tensors_are_copies_that_a_policy_takes(self, case: LearnerCase) -> None:
        learner, acting = case.learner(0), case.learner(1).policy()
        learner.update(case.batch(0), 0.0)
        tensors = learner.policy_tensors()
        before = {name: part.tobytes() for name, part in tensors.items()}
        acting.load_tensors(tensors)
        now = learner.policy()
        for seed in range(1, 5):
            learner.update(case.batch(seed), 0.0)
        assert {name: part.tobytes() for name, part in tensors.items()} == before
        assert any(part.tobytes() != before[name] for name, part in learner.policy_tensors().items())
        assert np.array_equal(played(acting, case), played(now, case))

    def test_a_policy_is_not_changed_by_later_updates(self, case: LearnerCase) -> None:
        learner = case.learner(rate=0.05)
        policy = learner.policy()
        before = played(policy, case)
        for seed in range(30):
            learner.update(case.batch(seed), 0.0)
        assert np.array_equal(played(policy, case), before)
        assert not np.array_equal(played(learner.policy(), case), before), "learning changes some action"

    def test_progress_drives_the_learning_rate_after_the_warm_up(self, case: LearnerCase) -> None:
        schedule = Schedule(kind="linear", start=1e-2, end=0.0)
        learner = case.make(seed=0, learning_rate=schedule, warmup=3)
        rates = [learner.update(case.batch(0), p).learning_rate for p in (0.0, 0.0, 0.0, 0.0, 0.5)]
        assert rates == pytest.approx([0.25e-2, 0.5e-2, 0.75e-2, 1e-2, 0.5e-2])
        before = bits(learner)
        assert learner.update(case.batch(0), 1.0).learning_rate == 0.0
        assert bits(learner) == before, "a rate of 0 moves nothing"

    def test_a_gradient_that_is_not_finite_changes_no_weights(self, case: LearnerCase) -> None:
        learner, twin, batch = case.learner(), case.learner(), case.batch(0)
        learner.update(batch, 0.0)
        before, average = bits(learner), learner.policy_tensors()
        pairs = len(learner.loss(batch).td_error)
        with pytest.raises(UpdateFailed, match=r"update 2: .*learning_rate"):
            learner.update({**batch, "weight": torch.full((pairs,), 3e38)}, 0.0)
        assert bits(learner) == before
        assert all(np.array_equal(part, average[name]) for name, part in learner.policy_tensors().items())
        twin.load_state_dict(learner.state_dict())
        assert learner.update(batch, 0.0).loss == twin.update(batch, 0.0).loss, "it can go on"
        assert bits(learner) == bits(twin)


def bits(learner: Learner) -> dict[str, bytes]:
    """The shared tensors, bit by bit."""
    return {name: part.numpy().tobytes() for name, (part, _) in learner.shared().items()}


def played(policy: Any, case: LearnerCase) -> np.ndarray:
    """A policy's greedy actions on some batches' observations."""
    parts: list[Mapping[str, torch.Tensor]] = [case.batch(seed)["observation_tm1"] for seed in range(8)]
    observation = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    actions: np.ndarray = policy.act(observation, None, GREEDY, np.random.default_rng(0))
    return actions


def random_boards(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Boards ``letters, colours [B, 6, 5] int8`` with 0 to 5 rows played, in letters and colours of any kind."""
    generator = np.random.default_rng(seed)
    played = np.arange(6)[None, :, None] < generator.integers(6, size=(count, 1, 1))
    letters = np.where(played, generator.integers(26, size=(count, 6, 5)), -1).astype(np.int8)
    colours = np.where(played, generator.integers(3, size=(count, 6, 5)), -1).astype(np.int8)
    return {"letters": torch.from_numpy(letters), "colours": torch.from_numpy(colours)}
