"""What it saves the Wordle learner to encode equal boards of a batch once, on the games of the data policy.

One item is one pair (board, guess) learnt: sampling, loss, gradient and Adam's step of the preset's network.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from harness import Benchmark, Competitor, main

from isogon.learners.randomness import stream
from isogon.learners.replay.replay import Replay
from isogon.learners.replay.transitions import TransitionAssembler
from isogon.system.builder import build_learner, build_spec
from isogon.system.config import load_config
from isogon.system.training.offline_games import record_offline_games


def build() -> Benchmark:
    torch.set_num_threads(1)
    config = load_config("wordle")
    environment, offline = config.environment, config.offline
    assert environment.kind == "wordle"
    assert offline is not None
    games = record_offline_games(environment, offline, config.seed, record_legal=False)
    transitions = TransitionAssembler(None, 1.0).add(games, continues=False)
    batch = config.replay.batch_size

    def update(merge_equal: bool) -> Callable[[], object]:
        learner = build_learner(config, build_spec(config))
        replay = Replay(config.replay.capacity, batch, stream(0, "benchmark"), merge_equal=merge_equal)
        replay.insert(transitions)
        return lambda: learner.update(replay.next_batch(), progress=0.5)

    return Benchmark(
        name="wordle_learner",
        unit="pair",
        baseline="each pair's board encoded",
        competitors={
            "each pair's board encoded": Competitor(update(merge_equal=False), batch),
            "equal boards encoded once": Competitor(update(merge_equal=True), batch),
        },
    )


if __name__ == "__main__":
    main(build)
