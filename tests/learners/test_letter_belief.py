from __future__ import annotations

import numpy as np
import pytest
import torch

from isogon.actors.environments.wordle import wordle_spec
from isogon.learners.learner import GREEDY
from isogon.learners.networks import (
    BeliefScorer,
    LetterBeliefConfig,
    LetterBeliefTorso,
    ValueModule,
    build_value_module,
)
from isogon.learners.q_learning import QLearner
from isogon.learners.q_learning_config import QLearningConfig
from isogon.learners.randomness import stream
from isogon.learners.values import ValueConfig

from .learner_suite import WORDLE_SPEC, WORDS, random_boards

CONFIG = LetterBeliefConfig(hidden=16, channels=5)
TILT = ValueConfig(form="tilt", bins=31, vmin=-6.0, vmax=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def module() -> ValueModule:
    return build_value_module(CONFIG, TILT, WORDLE_SPEC, seeded())


def batch(count: int = 40) -> dict[str, object]:
    """Pairs on random boards, every fourth of which solved its game."""
    target = torch.where(torch.arange(count) % 4 == 0, 0.0, -2.0)
    action = torch.randint(len(WORDS), (count,), generator=seeded(5))
    return {"observation_tm1": random_boards(count, 3), "row": torch.arange(count), "action": action, "target": target}


def test_pairs_shared_and_all_are_one_score_with_the_belief_in_it() -> None:
    torso, scorer = LetterBeliefTorso(CONFIG, WORDS, seeded()), BeliefScorer(CONFIG, WORDS, seeded(1))
    with torch.no_grad():
        hidden = torso(random_boards(20, 0))
        every = scorer.all(hidden)
        without = scorer.all({**hidden, "belief": torch.zeros_like(hidden["belief"])})
        torch.testing.assert_close(every - without, scorer.gain(hidden["features"]) * hidden["belief"])
        some = torch.tensor([7, 0, 39, 7])
        torch.testing.assert_close(scorer.shared(hidden, some), every[:, some], rtol=1e-4, atol=1e-4)
        row, action = (torch.randint(n, (60,), generator=seeded(3)) for n in (20, len(WORDS)))
        torch.testing.assert_close(scorer.pairs(hidden, row, action), every[row, action], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(2))
def test_letters_may_change_their_names(seed: int) -> None:
    config = LetterBeliefConfig(hidden=16, dense_channels=0)
    renamed = np.random.default_rng(seed).permutation(26)
    boards = random_boards(20, seed)
    letters = boards["letters"].numpy()
    again = {**boards, "letters": torch.from_numpy(np.where(letters >= 0, renamed[letters], -1).astype(np.int8))}
    words = tuple("".join(chr(97 + renamed[ord(letter) - 97]) for letter in word) for word in WORDS)
    one, other = (LetterBeliefTorso(config, each, seeded())(seen) for each, seen in ((WORDS, boards), (words, again)))
    torch.testing.assert_close(other["belief"], one["belief"])
    for part in (slice(0, 130), slice(130, 208)):
        by_letter = [hidden["letters"][:, part].unflatten(1, (26, -1)) for hidden in (one, other)]
        torch.testing.assert_close(by_letter[1][:, renamed], by_letter[0], rtol=1e-5, atol=1e-6)


def test_gradients_reach_every_weight() -> None:
    network, pairs = module(), batch()
    loss, _ = network(*(pairs[name] for name in ("observation_tm1", "row", "action", "target")))
    loss.loss.mean().backward()
    for name, part in network.named_parameters():
        assert part.grad is not None, name
        assert part.grad.abs().max() > 0, name


def test_no_weight_belongs_to_one_word() -> None:
    shapes = [
        {
            name: part.shape
            for name, part in build_value_module(CONFIG, TILT, wordle_spec(words), seeded()).state_dict().items()
        }
        for words in (WORDS, WORDS[:17])
    ]
    assert shapes[0] == shapes[1]


def test_experience_is_gathered_in_training_and_acted_with() -> None:
    learner = QLearner(module(), QLearningConfig(), stream(0, "learner"))
    learner.update(batch(), 0.0)
    learner.update(batch(), 0.0)
    counted = "torso.believe.answers"
    assert int(learner.policy_tensors()[counted]) == 20
    policy = learner.policy()
    policy.module(*(batch()[name] for name in ("observation_tm1", "row", "action", "target")))
    assert int(policy.module.state_dict()[counted]) == 20, "a policy only plays"
    again = QLearner(module(), QLearningConfig(), stream(0, "learner"))
    again.load_state_dict(learner.state_dict())
    assert int(again.policy_tensors()[counted]) == 20
    assert int(again.shared()[counted][0]) == 20


def believed(network: ValueModule, boards: dict[str, torch.Tensor], allowed: torch.Tensor | None) -> torch.Tensor:
    hidden = network.encode(boards, allowed)
    assert not isinstance(hidden, torch.Tensor)
    return hidden["belief"]


def test_players_weigh_only_the_words_that_they_may_guess() -> None:
    network = module().eval()
    boards = random_boards(6, 0)
    allowed = torch.rand(6, len(WORDS), generator=seeded(2)) < 0.5
    belief = believed(network, boards, allowed)
    assert (belief[~allowed] == 0).all()
    torch.testing.assert_close(belief.sum(1), torch.ones(6))
    torch.testing.assert_close(believed(network, boards, None), network.torso(boards)["belief"])

    learner = QLearner(module(), QLearningConfig(), stream(0, "learner"))
    policy, legal = learner.policy(), np.arange(len(WORDS)) < 7
    seen: list[torch.Tensor] = []
    policy.module.torso.register_forward_hook(lambda _module, _inputs, output: seen.append(output["belief"]))
    observation = {name: part.numpy() for name, part in boards.items()}
    policy.act(observation, np.broadcast_to(legal, (6, len(WORDS))), GREEDY, stream(0, "act"))
    assert (seen[0][:, 7:] == 0).all()


def test_words_are_not_scored_on_plain_features() -> None:
    with pytest.raises(ValueError, match=r"hidden is a tensor \[3, 16\]"):
        BeliefScorer(CONFIG, WORDS, seeded()).all(torch.zeros(3, 16))
