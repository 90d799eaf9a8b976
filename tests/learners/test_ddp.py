"""A learner in two processes, each with half of every batch, learns what it learns in one.

Run as a program, this file is one of the two processes.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from isogon.learners.batch import Batch
from isogon.learners.encodings import ArraySpec, EnvironmentSpec
from isogon.learners.networks import LetterTiedConfig, MLPConfig, build_value_module
from isogon.learners.q_learning import QLearner
from isogon.learners.q_learning_config import QLearningConfig
from isogon.learners.randomness import stream
from isogon.learners.schedules import Schedule
from isogon.learners.state import decode_state, encode_state
from isogon.learners.values import ValueConfig

RANKS = 2
UPDATES = 20
PAIRS = 32
BOARDS = 12
PLACE = ArraySpec((5,), "float32")
BOARD = ArraySpec((6, 5), "int8")
WORDS = tuple("".join(map(chr, letters)) for letters in np.random.default_rng(0).integers(97, 123, size=(30, 5)))
CONFIG = QLearningConfig(
    learning_rate=Schedule(kind="cosine", start=3e-3, end=1e-3),
    warmup_updates=3,
    target_update_every=6,
    average_decay=0.9,
    cql_weight=Schedule(start=0.1),
    cql_actions=4,
)


def mlp_learner(noisy_sigma: float | None = None) -> QLearner:
    spec = EnvironmentSpec("plain", {"place": PLACE}, 6)
    value = ValueConfig(bins=21, vmin=-5.0, vmax=5.0, noisy_sigma=noisy_sigma)
    module = build_value_module(MLPConfig(hidden=(16, 16)), value, spec, torch.Generator().manual_seed(0))
    return QLearner(module, CONFIG, stream(0, "learner"))


def wordle_learner() -> QLearner:
    spec = EnvironmentSpec("wordle", {"letters": BOARD, "colours": BOARD}, len(WORDS), True, WORDS)
    value = ValueConfig(form="tilt", bins=31, vmin=-6.0, vmax=0.0)
    module = build_value_module(LetterTiedConfig(hidden=16), value, spec, torch.Generator().manual_seed(0))
    return QLearner(module, CONFIG, stream(0, "learner"), contrast_actions=np.arange(20))


def mlp_batch(seed: int, part: slice) -> Batch:
    """The part of a batch of bootstrapped transitions."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randn(2, PAIRS, *PLACE.shape, generator=generator)
    return {
        "observation_tm1": {"place": places[0, part]},
        "action_tm1": torch.randint(6, (PAIRS,), generator=generator)[part],
        "reward_t": torch.randn(PAIRS, generator=generator)[part],
        "discount_t": 0.9 * torch.randint(2, (PAIRS,), generator=generator)[part],
        "observation_t": {"place": places[1, part]},
    }


def wordle_batch(seed: int, part: slice) -> Batch:
    """The part of a batch of pairs, with all of its boards: a part's pairs may be of any."""
    generator = np.random.default_rng(seed)
    played = np.arange(6)[None, :, None] < generator.integers(6, size=(BOARDS, 1, 1))
    letters = np.where(played, generator.integers(26, size=(BOARDS, 6, 5)), -1).astype(np.int8)
    colours = np.where(played, generator.integers(3, size=(BOARDS, 6, 5)), -1).astype(np.int8)
    return {
        "observation_tm1": {"letters": torch.from_numpy(letters), "colours": torch.from_numpy(colours)},
        "row": torch.from_numpy(generator.integers(BOARDS, size=PAIRS)[part]),
        "action": torch.from_numpy(generator.integers(len(WORDS), size=PAIRS)[part]),
        "target": torch.from_numpy(-6 * generator.random(PAIRS, np.float32)[part]),
    }


CASES: dict[str, tuple[Callable[[], QLearner], Callable[[int, slice], Batch]]] = {
    "mlp": (mlp_learner, mlp_batch),
    "noisy": (partial(mlp_learner, 0.5), mlp_batch),
    "wordle": (wordle_learner, wordle_batch),
}


def learn(name: str, part: slice, wrap: Callable[[torch.nn.Module], torch.nn.Module] | None = None) -> dict[str, Any]:
    """The learner's state after all updates with a part of every batch."""
    make, batch = CASES[name]
    learner = make()
    if wrap is not None:
        learner.module = wrap(learner.module)
    for update in range(UPDATES):
        learner.update(batch(update, part), update / UPDATES)
    return learner.state_dict()


def run_rank(rank: int, folder: Path) -> None:
    """Learn as one of the two processes, and leave the states in the folder."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=60),
    )
    half = PAIRS // RANKS
    for name in CASES:
        state = learn(name, slice(rank * half, (rank + 1) * half), DistributedDataParallel)
        tree, tensors = encode_state(state)
        (folder / f"{name}-{rank}.json").write_bytes(tree)
        (folder / f"{name}-{rank}.safetensors").write_bytes(tensors)
    distributed.destroy_process_group()


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    command = [sys.executable, "-W", "error", str(Path(__file__).resolve())]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for rank in range(RANKS)
    ]
    try:
        alone = {name: learn(name, slice(None)) for name in CASES}
        outputs = [process.communicate(timeout=90)[0].decode() for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(outputs)

    for name, expected in alone.items():
        first, second = (
            decode_state(*((tmp_path / f"{name}-{rank}.{end}").read_bytes() for end in ("json", "safetensors")))
            for rank in range(RANKS)
        )
        begun = CASES[name][0]().state_dict()
        assert first["updates"] == expected["updates"] == UPDATES
        for part in ("module", "target", "average"):
            for tensor, weights in expected[part].items():
                torch.testing.assert_close(first[part][tensor], weights, rtol=0, atol=1e-5, msg=f"{name} {tensor}")
                assert torch.equal(first[part][tensor], second[part][tensor]), (
                    f"{name} {tensor}: the ranks agree bitwise"
                )
        moved = [(weights - begun["module"][tensor]).abs().max() for tensor, weights in expected["module"].items()]
        assert min(moved) > 1e-3, f"{name}: every tensor has learnt, far beyond the tolerance"


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), Path(sys.argv[2]))
