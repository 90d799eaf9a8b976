from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from isogon.actors.environments.wordle import WordleEnvironment, build_vocabulary, load_words, wordle_spec
from isogon.actors.environments.wordle.patterns import score
from isogon.learners.encodings import ArraySpec, EnvironmentSpec, letter_knowledge, word_features
from isogon.learners.networks import (
    LetterTiedConfig,
    LetterTiedTorso,
    LetterUntiedConfig,
    LetterUntiedTorso,
    MLPConfig,
    MLPTorso,
    NetworkConfig,
    ValueModule,
    WordScorer,
    build_value_module,
)
from isogon.learners.randomness import stream
from isogon.learners.values import ValueConfig

from .learner_suite import WORDLE_SPEC, WORDS, random_boards

TILT = ValueConfig(form="tilt", bins=31, vmin=-6.0, vmax=0.0)
FULL = ValueConfig(bins=11, vmin=-1.0, vmax=1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def torso(seed: int = 0, **config: int) -> LetterTiedTorso:
    return LetterTiedTorso(LetterTiedConfig(hidden=16, **config), seeded(seed))


def boards_like_games(seed: int, count: int = 30) -> dict[str, torch.Tensor]:
    """Boards as games make them: `WORDS` guessed and coloured by one answer for each board."""
    generator = np.random.default_rng(seed)
    boards = {name: np.full((count, 6, 5), -1, np.int8) for name in ("letters", "colours")}
    for board in range(count):
        answer = generator.choice(WORDS)
        for row in range(generator.integers(6)):
            guess = generator.choice(WORDS)
            boards["letters"][board, row] = [ord(letter) - ord("a") for letter in guess]
            boards["colours"][board, row] = score(guess, answer)
    return {name: torch.from_numpy(part) for name, part in boards.items()}


# What a network of Wordle may know.


@pytest.fixture(scope="module")
def two_lists(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The shipped word list, and a list of every seventh of its words in another order."""
    shipped = load_words()
    path: Path = tmp_path_factory.mktemp("words") / "fewer.txt"
    path.write_text("\n".join(shipped[::-7]) + "\n", "utf-8")
    return shipped, load_words(path)


def test_two_boards_alike_are_one_input_under_different_word_lists(
    two_lists: tuple[tuple[str, ...], tuple[str, ...]],
) -> None:
    fewer = two_lists[1]
    answers, games = fewer[:20], np.random.default_rng(0)
    guesses = [games.permutation(fewer)[:6] for _ in answers]
    observations = []
    for words in two_lists:
        index = {word: place for place, word in enumerate(words)}
        environment = WordleEnvironment(build_vocabulary(words), np.array([index[word] for word in answers]))
        seen = [_tensors(environment.reset(stream(0, "games")))]
        for turn in range(5):
            action = np.array([index[row[turn]] for row in guesses])
            seen.append(_tensors(environment.step(action).observation))
        observations.append(seen)
    assert len({bytes(board.numpy()) for board in observations[0][-1]["colours"]}) > 10, "the games differ"
    network = torso()
    for one, other in zip(*observations, strict=True):
        assert one.keys() == other.keys() == {"letters", "colours"}
        assert all(torch.equal(one[name], other[name]) for name in one)
        known = [vars(letter_knowledge(board["letters"], board["colours"])) for board in (one, other)]
        assert all(torch.equal(known[0][name], known[1][name]) for name in known[0])
        hidden = [network(board) for board in (one, other)]
        assert all(torch.equal(hidden[0][name], hidden[1][name]) for name in hidden[0])


def test_no_weight_belongs_to_one_word(two_lists: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    many, few = (
        build_value_module(LetterTiedConfig(hidden=16), TILT, wordle_spec(words), seeded(seed))
        for seed, words in enumerate(two_lists)
    )
    shapes = [{name: part.shape for name, part in module.state_dict().items()} for module in (many, few)]
    assert shapes[0] == shapes[1]
    few.load_state_dict(many.state_dict())
    boards = boards_like_games(0)
    place = torch.tensor([two_lists[0].index(word) for word in two_lists[1]])
    with torch.no_grad():
        of_many, of_few = (module.head.values(module.torso(boards)) for module in (many, few))
    torch.testing.assert_close(of_few, of_many[:, place], rtol=1e-4, atol=1e-4)


def _tensors(observation: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(part.copy()) for name, part in observation.items()}


# Letters are alike to it.


@pytest.mark.parametrize("seed", range(3))
def test_letters_may_change_their_names(seed: int) -> None:
    network = torso(dense_channels=0)
    renamed = np.random.default_rng(seed).permutation(26)
    boards = boards_like_games(seed)
    letters = boards["letters"].numpy()
    again = {**boards, "letters": torch.from_numpy(np.where(letters >= 0, renamed[letters], -1).astype(np.int8))}
    words = tuple("".join(chr(97 + renamed[ord(letter) - 97]) for letter in word) for word in WORDS)
    scorers = [WordScorer(LetterTiedConfig(hidden=16), each, seeded(1)) for each in (WORDS, words)]
    with torch.no_grad():
        one, other = network(boards), network(again)
        for part in (slice(0, 130), slice(130, 208)):
            by_letter = [hidden["letters"][:, part].unflatten(1, (26, -1)) for hidden in (one, other)]
            torch.testing.assert_close(by_letter[1][:, renamed], by_letter[0], rtol=1e-5, atol=1e-6)
        # The board's features are not tied over letters, so they are held fixed.
        scores = [
            scorer.all({**hidden, "features": one["features"]})
            for scorer, hidden in zip(scorers, (one, other), strict=True)
        ]
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-4, atol=1e-4)
    assert scores[0].std(1).min() > 1e-3, "words differ"


def test_dense_channels_tell_letters_apart() -> None:
    plain, dense = torso(dense_channels=0), torso(dense_channels=3)
    dense.load_state_dict(plain.state_dict(), strict=False)
    boards = boards_like_games(0)
    with torch.no_grad():
        added = dense(boards)["letters"] - plain(boards)["letters"]
        assert (added[..., :3].abs().amax((0, 1)) > 1e-4).all()
        assert (added[..., 3:] == 0).all()


def test_the_cell_net_over_distinct_codes_is_the_cell_net_on_every_cell() -> None:
    network = torso(dense_channels=0)
    boards = boards_like_games(1)
    known = letter_knowledge(boards["letters"], boards["colours"])
    with torch.no_grad():
        hidden = network(boards)["letters"]
        for board in range(0, 30, 7):
            for letter in range(0, 26, 3):
                for position in range(5):
                    cell = [
                        known.possible[board, letter, position],
                        known.green[board, letter, position],
                        known.green[board, :, position].any(),
                        *known.at_least[board, letter],
                        *known.at_most[board, letter],
                        *known.turn[board],
                    ]
                    alone = network.cell(torch.tensor([float(bit) for bit in cell]))
                    together = hidden[board, letter * 5 + position]
                    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_gradients_reach_every_weight() -> None:
    module = build_value_module(LetterTiedConfig(hidden=16), TILT, WORDLE_SPEC, seeded())
    generator = seeded(1)
    row, action = (torch.randint(n, (60,), generator=generator) for n in (30, len(WORDS)))
    loss, _ = module(boards_like_games(0), row, action, -torch.rand(60, generator=generator) * 6)
    loss.loss.mean().backward()
    for name, part in module.named_parameters():
        assert part.grad is not None, name
        assert part.grad.abs().max() > 0, name


# Words are scored the same, whichever way.


@pytest.mark.parametrize("count", [1, 15, 16, 17, 50])
def test_pairs_shared_and_all_are_the_formula(count: int) -> None:
    config = LetterTiedConfig(hidden=16, channels=5)
    network, scorer = LetterTiedTorso(config, seeded()), WordScorer(config, WORDS, seeded(1))
    torch.nn.init.normal_(scorer.linear, generator=seeded(2))
    with torch.no_grad():
        hidden = network(random_boards(count, 0))
        h, letters = hidden["features"].double(), hidden["letters"].double()
        z = torch.einsum("bwr,aw->bar", letters, word_features(WORDS).double())
        slope, threshold = (
            torch.nn.functional.linear(h, layer.weight.double(), layer.bias.double())
            for layer in (scorer.slope, scorer.threshold)
        )
        bent = torch.relu(z + threshold[:, None])
        expected = (scorer.linear.double() * z + slope[:, None] * bent).sum(2).float()
        some = torch.tensor([7, 0, 39, 7])
        row, action = (torch.randint(n, (60,), generator=seeded(3)) for n in (count, len(WORDS)))
        for scores, wanted in (
            (scorer.all(hidden), expected),
            (scorer.shared(hidden, some), expected[:, some]),
            (scorer.pairs(hidden, row, action), expected[row, action]),
        ):
            torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-4)


def test_gradients_of_pairs_are_those_of_all() -> None:
    config = LetterTiedConfig(hidden=16)
    network, scorer = LetterTiedTorso(config, seeded()), WordScorer(config, WORDS, seeded(1))
    parameters = [*network.parameters(), *scorer.parameters()]
    row, action = (torch.randint(n, (60,), generator=seeded(3)) for n in (20, len(WORDS)))
    hidden = network(random_boards(20, 0))
    of_pairs = torch.autograd.grad(scorer.pairs(hidden, row, action).square().sum(), parameters, retain_graph=True)
    of_all = torch.autograd.grad(scorer.all(hidden)[row, action].square().sum(), parameters)
    for one, other in zip(of_pairs, of_all, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_words_are_not_scored_on_plain_features() -> None:
    scorer = WordScorer(LetterTiedConfig(hidden=16), WORDS, seeded())
    with pytest.raises(ValueError, match=r"hidden is a tensor \[3, 16\]"):
        scorer.all(torch.zeros(3, 16))


@pytest.mark.parametrize("dense_channels", [0, 8, 20])
def test_any_number_of_dense_channels_will_do(dense_channels: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = torso(channels=8, dense_channels=dense_channels)
    assert network(random_boards(3, 0))["letters"].shape == (3, 208, 8)


# Plain observations.


def mlp(fields: dict[str, tuple[int, ...]], seed: int = 0) -> MLPTorso:
    spec = EnvironmentSpec("plain", {name: ArraySpec(shape, "float32") for name, shape in fields.items()}, 2)
    return MLPTorso(MLPConfig(hidden=(7, 5)), spec, seeded(seed))


def test_fields_are_flattened_and_joined_by_name() -> None:
    fields: dict[str, tuple[int, ...]] = {"b": (2, 3), "a": (4,), "c": ()}
    network, again = mlp(fields), mlp(dict(sorted(fields.items())))
    observation = {name: torch.randn(6, *shape, generator=seeded(1)) for name, shape in fields.items()}
    observation["a"] = (observation["a"] * 50).to(torch.uint8)
    features = network(observation)
    assert torch.equal(features, again(dict(sorted(observation.items()))))
    assert features.shape == (6, network.features)
    joined = torch.cat([observation["a"].float(), observation["b"].reshape(6, 6), observation["c"][:, None]], dim=1)
    for layer in ("0", "2"):
        weight, bias = (network.layers.get_parameter(f"{layer}.{name}") for name in ("weight", "bias"))
        joined = torch.relu(joined @ weight.T + bias)
    torch.testing.assert_close(features, joined)


@pytest.mark.parametrize("hidden", [(), (0,), (8, -1)])
def test_layers_need_units(hidden: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="hidden"):
        MLPConfig(hidden=hidden)


# The module of both.


def plain_spec() -> EnvironmentSpec:
    return EnvironmentSpec("plain", {"observation": ArraySpec((3,), "float32")}, 4)


@pytest.mark.parametrize(
    ("network", "value", "spec"),
    [
        (LetterTiedConfig(hidden=16), TILT, WORDLE_SPEC),
        (LetterUntiedConfig(hidden=16), TILT, WORDLE_SPEC),
        (MLPConfig(hidden=(8,)), FULL, plain_spec()),
        (MLPConfig(hidden=(8,)), ValueConfig(kind="mse", form="tilt"), plain_spec()),
    ],
)
def test_first_weights_come_from_the_given_generator_alone(
    network: NetworkConfig, value: ValueConfig, spec: EnvironmentSpec
) -> None:
    def build(seed: int, elsewhere: int) -> ValueModule:
        torch.manual_seed(elsewhere)
        return build_value_module(network, value, spec, seeded(seed))

    one, same, other = (build(*seeds).state_dict() for seeds in ((0, 1), (0, 2), (3, 1)))
    assert all(torch.equal(part, same[name]) for name, part in one.items())
    assert any(not torch.equal(part, other[name]) for name, part in one.items())


@pytest.mark.parametrize("network", [LetterTiedConfig(), LetterUntiedConfig()])
def test_a_network_of_words_needs_words(network: NetworkConfig) -> None:
    with pytest.raises(ValueError, match=f"{network.kind} reads words, and plain has none: use the network mlp"):
        build_value_module(network, TILT, plain_spec(), seeded())


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_learnt_of_some_letters_changes_others_only_where_weights_are_tied(tied: bool) -> None:
    """A step on words without a letter leaves its channels alone on a board that has not changed, if untied."""
    torch.manual_seed(0)
    network: LetterTiedTorso | LetterUntiedTorso
    if tied:
        network = LetterTiedTorso(LetterTiedConfig(hidden=16, dense_channels=0), seeded())
    else:
        network = LetterUntiedTorso(LetterUntiedConfig(hidden=16), seeded())
    board = {name: torch.full((1, 6, 5), -1, dtype=torch.int8) for name in ("letters", "colours")}
    learnt = word_features(["crane", "slate"])
    features = learnt.sum(0) > 0
    for parameter in network.board.parameters():
        parameter.requires_grad_(False)
    before = network(board)["letters"].detach()
    assert before.shape == (1, 208, 8)
    (network(board)["letters"][0, features].sum()).backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad)
    moved = (network(board)["letters"] - before)[0].abs().sum(1) > 1e-6
    assert moved[features].all()
    assert bool(moved[~features].any()) is tied


def test_untied_letters_learn_from_boards_like_the_tied_ones() -> None:
    """Both networks read the same 422 bits, through which a board's colours reach every score."""
    module = build_value_module(LetterUntiedConfig(hidden=16), TILT, WORDLE_SPEC, seeded())
    boards = boards_like_games(0)
    values = module.head.values(module.torso(boards))
    assert values.shape == (30, WORDLE_SPEC.num_actions)
    repainted = {**boards, "colours": torch.where(boards["colours"] == 0, 1, boards["colours"])}
    changed = (module.head.values(module.torso(repainted)) != values).any(1)
    played = (boards["colours"] == 0).flatten(1).any(1)
    assert torch.equal(changed, played)


def test_words_are_not_in_checkpoints() -> None:
    module = build_value_module(LetterTiedConfig(hidden=16), TILT, WORDLE_SPEC, seeded())
    assert module.state_dict().keys() == dict(module.named_parameters()).keys()
