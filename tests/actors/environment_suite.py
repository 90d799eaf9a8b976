"""What every `VectorEnvironment` must do. A test class for one environment derives from `EnvironmentSuite`."""

from __future__ import annotations

import numpy as np
import pytest

from isogon.actors.environments import Observation, Step, VectorEnvironment
from isogon.learners.randomness import stream

STEPS = 60


def random_actions(environment: VectorEnvironment, generator: np.random.Generator) -> np.ndarray:
    legal = environment.legal()
    if legal is None:
        return generator.integers(environment.spec.num_actions, size=environment.num_envs)
    return np.asarray((generator.random(legal.shape) * legal).argmax(1))


def snapshot(step: Step) -> dict[str, np.ndarray]:
    return {
        **{f"observation/{name}": field.copy() for name, field in step.observation.items()},
        "reward": step.reward.copy(),
        "terminated": step.terminated.copy(),
        "truncated": step.truncated.copy(),
    }


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name, array in left.items():
        np.testing.assert_array_equal(array, right[name], err_msg=name)


class EnvironmentSuite:
    """Derived classes say how to make one; some of its random episodes must end within `STEPS` steps."""

    def make(self) -> VectorEnvironment:
        raise NotImplementedError

    def check_observation(self, environment: VectorEnvironment, observation: Observation) -> None:
        spec = environment.spec
        assert observation.keys() == spec.observation.keys()
        for name, array in spec.observation.items():
            assert observation[name].shape == (environment.num_envs, *array.shape), name
            assert observation[name].dtype == np.dtype(array.dtype), name
            assert np.isfinite(observation[name]).all(), name

    def test_shapes_and_dtypes_are_those_of_the_spec(self) -> None:
        environment = self.make()
        generator = stream(0, "actions")
        count = environment.num_envs
        self.check_observation(environment, environment.reset(stream(0, "environment")))
        for _ in range(STEPS):
            legal = environment.legal()
            assert (legal is not None) == environment.spec.has_legal
            if legal is not None:
                assert legal.shape == (count, environment.spec.num_actions)
                assert legal.dtype == np.bool_
                assert legal.any(1).all()
            step = environment.step(random_actions(environment, generator))
            self.check_observation(environment, step.observation)
            assert step.reward.shape == step.terminated.shape == step.truncated.shape == (count,)
            assert step.reward.dtype == np.float32
            assert step.terminated.dtype == step.truncated.dtype == np.bool_
        environment.close()

    def test_reset_is_on_the_next_step_and_ignores_the_action(self) -> None:
        one, other = self.make(), self.make()
        one.reset(stream(0, "environment"))
        other.reset(stream(0, "environment"))
        generator = stream(0, "actions")
        ended = np.zeros(one.num_envs, dtype=np.bool_)
        endings = 0
        for _ in range(STEPS):
            action = random_actions(one, generator)
            step = one.step(action)
            assert_same(snapshot(step), snapshot(other.step(np.where(ended, one.spec.num_actions + 7, action))))
            assert not step.reward[ended].any()
            assert not (step.terminated | step.truncated)[ended].any()
            ended = step.terminated | step.truncated
            endings += int(ended.sum())
        assert endings > 0, "no episode ended, so nothing was tested"
        one.close()
        other.close()

    def test_the_stream_alone_decides(self) -> None:
        def play(environment: VectorEnvironment, seed: int) -> list[dict[str, np.ndarray]]:
            environment.reset(stream(seed, "environment"))
            generator = stream(0, "actions")
            return [snapshot(environment.step(random_actions(environment, generator))) for _ in range(STEPS)]

        environment = self.make()
        first = play(environment, 3)
        for again in (play(environment, 3), play(self.make(), 3)):
            for left, right in zip(first, again, strict=True):
                assert_same(left, right)
        environment.close()

    def test_what_it_gave_is_not_written_over(self) -> None:
        environment = self.make()
        generator = stream(0, "actions")
        first = environment.reset(stream(0, "environment"))
        first_kept = {name: field.copy() for name, field in first.items()}
        given, kept = [], []
        for _ in range(10):
            legal = environment.legal()
            step = environment.step(random_actions(environment, generator))
            given.append((step, legal))
            kept.append((snapshot(step), None if legal is None else legal.copy()))
        assert_same(dict(first), first_kept)
        for (step, legal), (step_kept, legal_kept) in zip(given, kept, strict=True):
            assert_same(snapshot(step), step_kept)
            np.testing.assert_array_equal(np.asarray(legal), np.asarray(legal_kept))
        environment.close()

    def test_bad_actions_are_refused_by_name(self) -> None:
        environment = self.make()
        actions, count = environment.spec.num_actions, environment.num_envs
        fine = np.zeros(count, dtype=np.int64)
        with pytest.raises(ValueError, match="step before reset"):
            environment.step(fine)
        environment.reset(stream(0, "environment"))
        with pytest.raises(ValueError, match=rf"action is int64\[{count + 1}\], expected int64\[{count}\]"):
            environment.step(np.zeros(count + 1, dtype=np.int64))
        with pytest.raises(ValueError, match="action is float32"):
            environment.step(fine.astype(np.float32))
        for bad in (-1, actions):
            action = random_actions(environment, stream(0, "actions"))
            action[count - 1] = bad
            with pytest.raises(ValueError, match=rf"action\[{count - 1}\] is {bad}: it must be in 0..{actions - 1}"):
                environment.step(action)
        environment.close()
