"""How fast Wordle is played, beside the bare look-up of a guess's colours in the pattern matrix.

One item is one board taken one step: a guess, or the beginning of a new game. What the environment adds to the look-up
is bookkeeping: boards, rewards, endings, and the mask of legal words (512 x 2,088). The players' rows are the whole
making of offline games: player, mask and environment.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from harness import Benchmark, Competitor, main

from isogon.actors.environments.config import WordleConfig
from isogon.actors.environments.contract import Player
from isogon.actors.environments.wordle import (
    FilteringPlayer,
    MixturePlayer,
    WordleEnvironment,
    build_vocabulary,
    load_words,
    split_words,
)
from isogon.actors.environments.wordle.patterns import pattern_matrix
from isogon.learners.learner import GREEDY
from isogon.learners.randomness import stream

BOARDS = 512
STEPS = 64


def build() -> Benchmark:
    vocabulary = build_vocabulary(load_words())
    train = split_words(vocabulary.words, WordleConfig()).train
    generator = stream(0, "benchmark")
    # No word comes twice within six steps, so that every guess is legal whenever a game began.
    guesses = [np.resize(train[step % 32 :: 32], BOARDS) for step in range(STEPS)]
    answers = [generator.choice(train, BOARDS) for _ in range(STEPS)]
    environment = WordleEnvironment(vocabulary, train, BOARDS, guesses=train)
    environment.reset(generator)

    def look_up() -> None:
        for guess, answer in zip(guesses, answers, strict=True):
            vocabulary.patterns[guess, answer]

    def step(with_legal: bool) -> Callable[[], None]:
        def run() -> None:
            environment.reset(generator)
            for guess in guesses:
                environment.step(guess)
                if with_legal:
                    environment.legal()

        return run

    work = BOARDS * STEPS

    def play(player: Player) -> Competitor:
        def run() -> int:
            observation, games = environment.reset(generator), 0
            for _ in range(STEPS):
                step = environment.step(player.act(observation, environment.legal(), GREEDY, generator))
                observation = step.observation
                games += int(step.terminated.sum())
            return games

        return Competitor(run, work, also={"game": run()})

    pairs = len(vocabulary) ** 2
    return Benchmark(
        name="wordle_environment",
        unit="step of a board",
        baseline="bare look-up",
        competitors={
            "bare look-up": Competitor(look_up, work),
            "environment step": Competitor(step(with_legal=False), work),
            "environment step and legal": Competitor(step(with_legal=True), work),
            "mixture player, whole games": play(MixturePlayer(vocabulary, 0.5, train)),
            "filtering player, whole games": play(FilteringPlayer(vocabulary, train)),
            "pattern matrix, an entry": Competitor(lambda: pattern_matrix(vocabulary.letters), pairs),
        },
    )


if __name__ == "__main__":
    main(build)
