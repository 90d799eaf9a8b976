"""Frames that are kept once: what a batch shows is what was seen, whatever went over the ring meanwhile."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.actors.columns import Columns
from isogon.learners.encodings.history import History
from isogon.learners.encodings.spec import ArraySpec, EnvironmentSpec
from isogon.learners.randomness import stream
from isogon.learners.replay import Replay, RolloutIntake
from isogon.learners.replay.frames import FrameStore

HISTORY = 3
SPEC = EnvironmentSpec("counting", {"observation": ArraySpec((2,), "int32")}, 4, history=HISTORY)


class Player:
    """Plays episodes of random lengths. Each frame is different, and a table says what was seen with it."""

    def __init__(self, name: int, envs: int, seen: dict[tuple[int, int], np.ndarray]) -> None:
        self.rng = np.random.default_rng(name)
        self.name, self.envs, self.seen = name, envs, seen
        self.count = 0
        self.begin()

    def begin(self) -> None:
        self.history = History(SPEC, self.envs)
        self.ended = np.zeros(self.envs, bool)
        self.frame = self.draw(np.ones(self.envs, bool))

    def draw(self, begins: np.ndarray) -> np.ndarray:
        numbers = self.count + np.arange(self.envs)
        self.count += self.envs
        frame = np.stack([np.full(self.envs, self.name), numbers], axis=1).astype(np.int32)
        stacks = self.history.add({"observation": frame}, begins)["observation"]
        for row, stack in zip(frame, stacks, strict=True):
            self.seen[row[0], row[1]] = stack
        return frame

    def play(self, steps: int) -> Columns:
        shape = (steps, self.envs)
        flags = {name: np.zeros(shape, bool) for name in ("terminated", "truncated", "valid")}
        frames = np.zeros((steps + 1, self.envs, 2), np.int32)
        reward = np.zeros(shape, np.float32)
        for t in range(steps):
            frames[t] = self.frame
            live = ~self.ended
            flags["valid"][t] = live
            over = live & (self.rng.random(self.envs) < 0.2)
            flags["terminated"][t], cut = over & (self.rng.random(self.envs) < 0.5), over
            flags["truncated"][t] = cut & ~flags["terminated"][t]
            # The reward names the frame that it was got from.
            reward[t] = np.where(live, self.frame[:, 1], 0)
            self.frame = self.draw(~live)
            self.ended = over
        frames[steps] = self.frame
        return {
            "observation/observation": frames,
            "action": self.rng.integers(4, size=shape),
            "reward": reward,
            "episode": np.zeros(shape, np.int64),
            "version": np.ones(shape, np.int64),
            **flags,
        }


def make(capacity: int, in_hand: int, *, batch: int = 64, prioritised: bool = False) -> Replay:
    return Replay(
        capacity,
        batch,
        stream(0, "replay"),
        frames=FrameStore(capacity + in_hand, SPEC),
        frames_in_hand=in_hand,
        priority_exponent=0.6 if prioritised else None,
    )


def check_batch(replay: Replay, seen: dict[tuple[int, int], np.ndarray], n: int, discount: float) -> int:
    """Every sample's stacks are what was seen; the number of them that bootstrap."""
    batch = replay.next_batch()
    before, after = (batch[name]["observation"].numpy() for name in ("observation_tm1", "observation_t"))
    assert before.shape == after.shape == (replay.batch_size, HISTORY, 2)
    for row in range(replay.batch_size):
        player, number = before[row, -1].tolist()
        np.testing.assert_array_equal(before[row], seen[player, number])
        if batch["discount_t"][row] > 0:
            np.testing.assert_array_equal(after[row], seen[tuple(after[row, -1].tolist())])
            assert after[row, -1, 0] == player
            assert after[row, -1, 1] > number
        if n == 1:
            assert batch["reward_t"][row] == number
            assert batch["discount_t"][row] in (0.0, pytest.approx(discount))
    return int((batch["discount_t"] > 0).sum())


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(20, 400),
    in_hand=st.integers(1, 150),
    n=st.sampled_from([1, 3]),
    prioritised=st.booleans(),
    turns=st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 12), st.sampled_from(["goes on", "goes on", "lost", "anew"])),
        min_size=3,
        max_size=40,
    ),
)
def test_stacks_are_what_players_saw(
    capacity: int, in_hand: int, n: int, prioritised: bool, turns: list[tuple[int, int, str]]
) -> None:
    """Three players of different speeds whose rollouts come as they come, or are lost, or who begin anew."""
    seen: dict[tuple[int, int], np.ndarray] = {}
    replay = make(capacity, in_hand, prioritised=prioritised)
    players = [Player(name, 1 + name, seen) for name in range(3)]
    intakes = [RolloutIntake(replay, n, 0.9) for _ in players]
    known = [False] * 3
    for turn, (index, steps, how) in enumerate(turns):
        if how == "anew":
            players[index].begin()
            known[index] = False
        columns = players[index].play(steps)
        if how == "lost":
            # Its frames never come; the next rollout does not go on where the last one stopped, and what is seen of the
            # episode in hand begins with that rollout, so it is left out here by beginning anew.
            players[index].begin()
            known[index] = False
            continue
        intakes[index].add(columns, continues=known[index])
        known[index] = True
        replay.check_valid()
        if len(replay):
            check_batch(replay, seen, n, 0.9)
            if prioritised:
                index_of = replay.next_batch()["index"]
                replay.update_priorities(index_of, torch.rand(len(index_of)) * (turn % 3))
                replay.check_valid()


def test_enough_room_keeps_all_that_was_promised() -> None:
    """With frames in hand as many as players add meanwhile nothing goes before ``capacity`` newer ones came."""
    seen: dict[tuple[int, int], np.ndarray] = {}
    replay = make(300, 200)
    player = Player(0, 4, seen)
    intake = RolloutIntake(replay, 3, 0.9)
    for turn in range(100):
        intake.add(player.play(8), continues=turn > 0)
    # Frames at episodes' ends take room too: a sixth of them, with episodes of five steps.
    assert 0.7 * 300 < len(replay) <= 300
    assert check_batch(replay, seen, 3, 0.9) > 0


def test_a_frame_is_kept_once() -> None:
    seen: dict[tuple[int, int], np.ndarray] = {}
    replay = make(1000, 100)
    player = Player(0, 2, seen)
    intake = RolloutIntake(replay, 1, 0.9)
    for turn in range(10):
        intake.add(player.play(20), continues=turn > 0)
    assert replay.frames is not None
    # Ten rollouts of 20 rows and the last one's open row, two environments.
    assert replay.frames.added == (10 * 20 + 1) * 2
    state = replay.state_dict()
    assert set(state["transitions"]) >= {"observation_tm1/frame", "observation_t/frame"}
    frames = state["frames"]["frames"]["observation"]
    assert len(np.unique(frames, axis=0)) == len(frames)


@pytest.mark.parametrize("prioritised", [False, True])
@pytest.mark.parametrize("turns", [4, 60])
def test_a_state_goes_on_as_it_would_have(turns: int, prioritised: bool) -> None:
    seen: dict[tuple[int, int], np.ndarray] = {}
    replay = make(200, 100, prioritised=prioritised)
    player = Player(0, 2, seen)
    intake = RolloutIntake(replay, 2, 0.9)
    for turn in range(turns):
        intake.add(player.play(8), continues=turn > 0)
        if prioritised and len(replay):
            batch = replay.next_batch()
            replay.update_priorities(batch["index"], torch.rand(64, generator=torch.Generator().manual_seed(turn)))
    other = make(200, 100, prioritised=prioritised)
    other.load_state_dict(replay.state_dict())
    other.check_valid()
    player.begin()
    rollouts = [player.play(8) for _ in range(20)]
    intakes = [RolloutIntake(each, 2, 0.9) for each in (replay, other)]
    for turn, rollout in enumerate(rollouts):
        batches = []
        for each, own in zip((replay, other), intakes, strict=True):
            own.add(rollout, continues=turn > 0)
            batches.append(each.next_batch(0.5))
        for name in ("reward_t", "index", *(["weight"] if prioritised else [])):
            assert torch.equal(batches[0][name], batches[1][name])
        assert torch.equal(*(batch["observation_tm1"]["observation"] for batch in batches))
        for each, batch in zip((replay, other), batches, strict=True):
            each.update_priorities(batch["index"], batch["reward_t"] % 3)
    small = make(50, 100, prioritised=prioritised)
    small.load_state_dict(replay.state_dict())
    small.check_valid()
    assert 0 < len(small) <= 50
    check_batch(small, seen, 2, 0.9)


def test_rewards_are_clipped_before_they_are_summed() -> None:
    observed: list[np.ndarray] = []
    replay = Replay(100, 4, stream(0, "replay"), frames=FrameStore(200, SPEC), frames_in_hand=50)
    make_intake = partial(RolloutIntake, replay, 2, 1.0, lambda rewards, over: observed.append(rewards))
    player = Player(0, 1, {})
    player.rng = np.random.default_rng(5)
    columns = player.play(30)
    unclipped = columns["reward"].copy()
    make_intake(clip_rewards=True).add(columns, continues=False)
    rewards = replay.state_dict()["transitions"]["reward_t"]
    assert unclipped.max() > 10
    assert set(rewards.tolist()) <= {0.0, 1.0, 2.0}
    assert 2.0 in rewards
    assert max(episode.max() for episode in observed) == 1.0
    np.testing.assert_array_equal(columns["reward"], unclipped)


def test_no_room_for_what_is_in_hand_is_refused() -> None:
    with pytest.raises(ValueError, match="frames_in_hand is 100 and there is room for 100 frames"):
        Replay(10, 1, stream(0, "replay"), frames=FrameStore(100, SPEC), frames_in_hand=100)
