"""Loops that learn Pong, each in a process of its own that runs when it is told to.

``python throughput_loops.py NAME``: reads seconds, a line each, from its input; plays and learns for about so long; and
answers with a line of JSON: ``{"steps", "updates", "seconds", "cpu"}``, where cpu is of all its threads.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ale_py.vector_env import AtariVectorEnv
from torch import nn
from torch.nn import functional

THREADS = 2
ENVS, BATCH, STEPS_PER_UPDATE = 16, 32, 4
REPLAY, MIN_REPLAY = 20_000, 2_000
BINS, LOW, HIGH, SIGMA_RATIO = 51, -10.0, 10.0, 0.75
DISCOUNT, RATE, ADAM_EPSILON, MOST_NORM, TARGET_EVERY = 0.99, 6.25e-5, 1.5e-4, 10.0, 2000
EPSILON = 0.1
ACTIONS = 6


def nature() -> nn.Sequential:
    """DQN's network with an output for each action and bin."""
    return nn.Sequential(
        *(nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, ACTIONS * BINS)),
    )


class BareLoop:
    """The yardstick: a vector of emulators, single frames in numpy arrays, the network, and nothing else.

    Args:
        learning: off, it only acts.
    """

    def __init__(self, *, learning: bool = True) -> None:
        torch.set_num_threads(THREADS)
        torch.manual_seed(0)
        self.learning = learning
        self.env = AtariVectorEnv(
            "pong",
            ENVS,
            num_threads=1,
            stack_num=1,
            noop_max=0,
            repeat_action_probability=0.25,
            use_fire_reset=False,
            reward_clipping=False,
        )
        frames: np.ndarray
        frames, _ = self.env.reset(seed=np.arange(ENVS))
        self.rows = REPLAY // ENVS
        self.frames = np.zeros((self.rows, ENVS, 84, 84), np.uint8)
        self.action = np.zeros((self.rows, ENVS), np.int64)
        self.reward = np.zeros((self.rows, ENVS), np.float32)
        self.terminated = np.zeros((self.rows, ENVS), bool)
        self.row, self.filled = 0, 0
        self.seen = np.repeat(frames, 4, axis=1)
        self.ended = np.zeros(ENVS, bool)
        self.net, self.target = nature(), nature()
        self.target.load_state_dict(self.net.state_dict())
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=RATE, eps=ADAM_EPSILON, fused=True)
        self.edges = torch.linspace(LOW, HIGH, BINS + 1)
        self.centres = (self.edges[1:] + self.edges[:-1]) / 2
        self.scale = 1 / (math.sqrt(2) * SIGMA_RATIO * (HIGH - LOW) / BINS)
        self.rng = np.random.default_rng(0)
        self.steps = self.updates = 0

    def values(self, net: nn.Module, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs ``[B, A, K]`` and values ``[B, A]``."""
        logits = net(seen.float() * (1 / 255)).reshape(-1, ACTIONS, BINS)
        return logits, (logits.softmax(-1) * self.centres).sum(-1)

    @torch.no_grad()
    def play(self) -> None:
        """A step of every environment."""
        action = self.values(self.net, torch.from_numpy(self.seen))[1].argmax(1).numpy()
        stray = self.rng.random(ENVS) < EPSILON
        action[stray] = self.rng.integers(ACTIONS, size=int(stray.sum()))
        self.frames[self.row] = self.seen[:, -1]
        frames, reward, terminated, truncated, _ = self.env.step(action)
        self.action[self.row], self.reward[self.row] = action, np.clip(reward, -1, 1)
        self.terminated[self.row] = terminated
        self.seen = np.concatenate([self.seen[:, 1:], frames], axis=1)
        self.seen[self.ended] = frames[self.ended]
        self.ended = terminated | truncated
        self.row = (self.row + 1) % self.rows
        self.filled = min(self.filled + 1, self.rows)
        self.steps += ENVS

    def update(self) -> None:
        """One step of double Q-learning by HL-Gauss's cross-entropy."""
        # Rows that lie under the ring's seam, or over an episode's end, are rare and stay in.
        row = (self.row - self.filled + 4 + self.rng.integers(self.filled - 6, size=BATCH)) % self.rows
        env = self.rng.integers(ENVS, size=BATCH)
        window = (row[:, None] + np.arange(-3, 2)) % self.rows
        stacks = torch.from_numpy(self.frames[window, env[:, None]])
        action = torch.from_numpy(self.action[row, env])
        with torch.no_grad():
            best = self.values(self.net, stacks[:, 1:])[1].argmax(1)
            following = self.values(self.target, stacks[:, 1:])[1].gather(1, best[:, None])[:, 0]
            going = torch.from_numpy(~self.terminated[row, env]).float()
            target = torch.from_numpy(self.reward[row, env]) + DISCOUNT * going * following
            mass = torch.special.erf((self.edges - target.clamp(LOW, HIGH)[:, None]) * self.scale)
            wanted = (mass[:, 1:] - mass[:, :-1]) / (mass[:, -1:] - mass[:, :1])
        logits, _ = self.values(self.net, stacks[:, :-1])
        chosen = logits[torch.arange(BATCH), action]
        loss = -(wanted * functional.log_softmax(chosen, -1)).sum(-1).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), MOST_NORM)
        self.optimiser.step()
        self.updates += 1
        if self.updates % TARGET_EVERY == 0:
            self.target.load_state_dict(self.net.state_dict())

    def turn(self) -> Iterator[tuple[int, int]]:
        """Play and learn for ever, giving steps and updates made."""
        while True:
            self.play()
            if self.learning and self.filled * ENVS >= MIN_REPLAY:
                for _ in range(ENVS // STEPS_PER_UPDATE):
                    self.update()
            yield self.steps, self.updates


class RawEnvironment:
    """Emulators and a bare forward pass for each step, and nothing kept."""

    def __init__(self) -> None:
        self.loop = BareLoop(learning=False)

    @torch.no_grad()
    def turn(self) -> Iterator[tuple[int, int]]:
        """As `BareLoop.turn`."""
        loop = self.loop
        while True:
            action = loop.values(loop.net, torch.from_numpy(loop.seen))[1].argmax(1).numpy()
            frames, *_ = loop.env.step(action)
            loop.seen = np.concatenate([loop.seen[:, 1:], frames], axis=1)
            loop.steps += ENVS
            yield loop.steps, 0


SETTINGS = (
    f"torch_threads={THREADS}",
    "actors.pool=in_process",
    "actors.split=equal",
    f"actors.envs_per_worker={ENVS}",
    f"actors.steps_per_assignment={8 * ENVS}",
    "actors.assignments_in_flight=1",
    f"actors.updates_per_step={1 / STEPS_PER_UPDATE}",
    f"actors.epsilon={{start: {EPSILON}}}",
    f"replay.capacity={REPLAY}",
    f"replay.batch_size={BATCH}",
    f"replay.min_size={MIN_REPLAY}",
    "budget.env_steps=100000000",
    "evaluation.every_share=1",
    "checkpoints.every_seconds=null",
)
"""Of our runs: as the bare loop is set, and nothing beside it."""


class Isogon:
    """The whole system: `isogon.train` with the pool in its own process.

    Args:
        overrides: of the preset, after `SETTINGS`.
        preset: of the run.
    """

    def __init__(self, *overrides: str, preset: str = "atari") -> None:
        from isogon import Callback, Progress, load_config, train

        config = load_config(preset, [*SETTINGS, *overrides])
        self._now = (0, 0)
        self._until, self._go, self._done = 0.0, threading.Event(), threading.Event()
        gate = self

        class Gate(Callback):
            """Lets the run go on for a turn at a time. It is asked twice a second."""

            def on_progress(self, progress: Progress) -> None:
                gate._now = (progress.env_steps, progress.updates)
                if time.perf_counter() >= gate._until:
                    gate._go.clear()
                    gate._done.set()
                    gate._go.wait()

        folder = Path(tempfile.mkdtemp(prefix="throughput-"))
        self._thread = threading.Thread(
            target=train, args=(config,), kwargs={"run_dir": folder / "run", "callbacks": [Gate()]}, daemon=True
        )

    def run_for(self, seconds: float) -> tuple[int, int]:
        """Let it go on, and tell the steps and updates made in all when it has stopped again."""
        self._done.clear()
        self._until = time.perf_counter() + seconds
        self._go.set()
        if not self._thread.is_alive():
            self._thread.start()
        self._done.wait()
        return self._now


class RLlibCartPole:
    """RLlib's DQN on CartPole as it comes, with as many samples for each step as ours, and no runners of its own."""

    def __init__(self) -> None:
        import ray
        from ray.rllib.algorithms.dqn import DQNConfig

        torch.set_num_threads(1)
        ray.init(address="local", num_cpus=THREADS, include_dashboard=False, log_to_driver=False)
        config = (
            DQNConfig()
            .environment("CartPole-v1")
            .env_runners(num_env_runners=0, rollout_fragment_length=STEPS_PER_UPDATE)
            .training(
                train_batch_size_per_learner=BATCH,
                num_steps_sampled_before_learning_starts=200,
                replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": REPLAY},
            )
        )
        self.algorithm = config.build_algo()

    def turn(self) -> Iterator[tuple[int, int]]:
        """As `BareLoop.turn`."""
        steps = 0
        while True:
            self.algorithm.training_step()
            steps += STEPS_PER_UPDATE
            yield steps, steps // STEPS_PER_UPDATE


def runner(make: Callable[[], Any]) -> Callable[[float], tuple[int, int]]:
    """What lets a loop go on for so many seconds and gives its steps and updates in all."""
    made = make()
    if isinstance(made, Isogon):
        return made.run_for
    turns = made.turn()

    def run_for(seconds: float) -> tuple[int, int]:
        until, counts = time.perf_counter() + seconds, (0, 0)
        while time.perf_counter() < until:
            counts = next(turns)
        return counts

    return run_for


LOOPS: dict[str, Callable[[], Any]] = {
    "bare_loop": BareLoop,
    "bare_acting": RawEnvironment,
    "isogon_fp32": Isogon,
    "isogon_channels_last": lambda: Isogon("learner.channels_last=true"),
    "isogon_bf16": lambda: Isogon("learner.precision=bf16", "learner.channels_last=true"),
    "rllib_cartpole": RLlibCartPole,
    "isogon_cartpole": lambda: Isogon(
        "deterministic=false",
        "torch_threads=1",
        "network.hidden=[256, 256]",
        "replay.min_size=200",
        preset="cartpole",
    ),
    "isogon_acting": lambda: Isogon("replay.min_size=20000", "replay.capacity=20000", "actors.updates_per_step=1e-9"),
}


def main() -> None:
    run_for = runner(LOOPS[sys.argv[1]])
    steps, updates = 0, 0
    for line in sys.stdin:
        begun, cpu = time.perf_counter(), time.process_time()
        made_steps, made_updates = run_for(float(line))
        told = {
            "steps": made_steps - steps,
            "updates": made_updates - updates,
            "seconds": time.perf_counter() - begun,
            "cpu": time.process_time() - cpu,
        }
        steps, updates = made_steps, made_updates
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
