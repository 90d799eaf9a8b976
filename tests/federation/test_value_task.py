"""Federated clients that learn values: what they see, what they learn, what crosses the link."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from isogon.actors.environments.wordle import load_words, split_words
from isogon.actors.federation.client import LocalModel, LocalWork, Model, Silo
from isogon.actors.federation.value_client import ValueClient
from isogon.actors.federation.value_config import EnvironmentSilos
from isogon.actors.rollout import Rollout
from isogon.learners.policy import QPolicy
from isogon.learners.randomness import stream
from isogon.system.federation.value_task import ValueTask
from isogon.system.federation.value_task_config import ValueTaskConfig

CARTPOLE: dict[str, Any] = {
    "environment": {"kind": "gymnasium", "id": "isogon/CartPole-v1"},
    "network": {"kind": "mlp", "hidden": [32]},
    "value": {"bins": 21, "vmin": 0.0, "vmax": 100.0},
    "learner": {"learning_rate": {"start": 1e-3}, "warmup_updates": 0},
    "replay": {"capacity": 5000, "batch_size": 32, "min_size": 200, "n_step": 3},
    "silos": {"kind": "environment", "kwargs": [{"length": 0.25}, {"length": 2.0, "masspole": 1.0}], "episodes": 4},
    "client": {"envs": 4, "steps_per_rollout": 16, "env_steps_per_update": 4.0, "epsilon": {"start": 0.2}},
}


def wordle(tmp_path: Path, **changed: Any) -> ValueTaskConfig:
    """Sixty words, 42 of them for training."""
    path = tmp_path / "words.txt"
    path.write_text("\n".join(load_words()[::34][:60]) + "\n")
    sections = {
        "environment": {"kind": "wordle", "word_list": str(path), "validation_share": 0.2},
        "network": {"kind": "letter_tied", "hidden": 16, "channels": 2},
        "value": {"form": "tilt", "bins": 13, "vmin": -6.0, "vmax": 0.0},
        "learner": {"learning_rate": {"start": 3e-3}, "warmup_updates": 0, "target_update_every": 0},
        "replay": {"capacity": 5000, "batch_size": 64, "min_size": 500, "returns": "monte_carlo", "discount": 1.0},
        "offline": {"steps": 1500},
        "silos": {"kind": "wordle"},
        "client": {"envs": 16, "env_steps_per_update": 10.0, "steps_per_rollout": 64},
    }
    return ValueTaskConfig.model_validate({**sections, **changed})


def with_client(config: ValueTaskConfig, **changed: Any) -> ValueTaskConfig:
    return config.model_copy(update={"client": config.client.model_copy(update=changed)})


def client_of(config: ValueTaskConfig, index: int = 0, clients: int = 2) -> ValueClient:
    client = ValueTask(config, 0).make_client(Silo(f"c{index}", index, clients, 0))
    assert isinstance(client, ValueClient)
    return client


def work(steps: int, sequence: int = 0, **options: Any) -> LocalWork:
    return LocalWork(steps, version=1, generator=stream(0, "work", 0, sequence), **options)


def distance(one: Model, other: Model) -> float:
    return float(np.sqrt(sum(float(((one[name] - other[name]) ** 2).sum()) for name in one)))


def assert_same(one: LocalModel, other: LocalModel) -> None:
    assert one.stats == other.stats
    for name, part in one.tensors.items():
        np.testing.assert_array_equal(part, other.tensors[name])


def test_a_wordle_client_learns(tmp_path: Path) -> None:
    config = wordle(tmp_path)
    task, client = ValueTask(config, 0), client_of(config, clients=1)
    model = first = task.initial_model()
    losses = []
    for sequence in range(5):
        done = client.train(model, work(30, sequence))
        assert done.steps == 30
        model = done.tensors
        losses.append(done.stats["loss"])
    assert losses[-1] < 0.95 * losses[0]
    assert task.evaluate(model)["score"] > task.evaluate(first)["score"] + 0.4
    before, after = (client.evaluate(one, client.samples, stream(0, "e"))["score"] for one in (first, model))
    assert after > before + 0.4
    assert done.stats["env_steps"] > 200
    assert -6.0 <= done.stats["episode_return"] <= 0.0
    assert done.stats["targets_clipped"] == 0.0


def test_clients_never_see_each_others_words_nor_those_set_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, in training and in evaluation; read off the boards, which are all that a client sees."""
    seen: set[str] = set()
    run = Rollout.run

    def note(self: Rollout, *args: Any, **options: Any) -> dict[str, np.ndarray]:
        columns = run(self, *args, **options)
        rows = columns["observation/letters"].reshape(-1, 5)
        seen.update("".join(chr(97 + letter) for letter in row) for row in np.unique(rows[rows[:, 0] >= 0], axis=0))
        return columns

    monkeypatch.setattr(Rollout, "run", note)
    config = wordle(tmp_path)
    task = ValueTask(config, 0)
    guessed = []
    for index in range(2):
        seen.clear()
        client = client_of(config, index)
        client.train(task.initial_model(), work(20))
        assert len(seen) == client.samples, "every word of its own is guessed sooner or later"
        guessed.append(set(seen))
    assert not guessed[0] & guessed[1]
    environment = config.environment
    assert environment.kind == "wordle"
    words = load_words(environment.word_list)
    train = {words[index] for index in split_words(words, environment).train}
    assert guessed[0] | guessed[1] < train, "test words of the clients are among the training words, and not guessed"


def test_what_two_clients_came_to_averages_into_a_model_for_a_third(tmp_path: Path) -> None:
    config = wordle(tmp_path, silos={"kind": "wordle", "shares": [4, 3, 2]})
    task = ValueTask(config, 0)
    first = task.initial_model()
    assert set(task.kinds().values()) == {"mean"}
    done = [client_of(config, index, clients=3).train(first, work(5)).tensors for index in range(2)]
    for tensors in done:
        assert {name: (part.shape, part.dtype) for name, part in tensors.items()} == {
            name: (part.shape, part.dtype) for name, part in first.items()
        }
    mean = {name: (done[0][name] + done[1][name]) / 2 for name in first}
    for part in mean.values():
        part.flags.writeable = False
    third = client_of(config, 2, clients=3).train(mean, work(1))
    assert 0 < distance(third.tensors, mean) < 0.3 * distance(done[0], first)
    assert task.evaluate(mean)["score"] > -6.0
    samples = [client_of(config, index, clients=3).samples for index in range(3)]
    assert samples == sorted(samples, reverse=True)


def test_the_same_assignments_twice_are_the_same_bits_and_another_stream_is_not(tmp_path: Path) -> None:
    """Also those of a client made anew: a new process that is given an assignment can do it."""
    for config in (wordle(tmp_path), ValueTaskConfig.model_validate(CARTPOLE)):
        model = ValueTask(config, 0).initial_model()
        one, other = client_of(config), client_of(config)
        for sequence in range(2):
            assert_same(one.train(model, work(8, sequence)), other.train(model, work(8, sequence)))
        again = client_of(config).train(model, work(40, 7))
        assert distance(again.tensors, client_of(config).train(model, work(40, 8)).tensors) > 0


def test_fedprox_holds_a_client_near_the_model_it_was_given(tmp_path: Path) -> None:
    moved = []
    for mu in (0.0, 1.0, 1000.0):
        config = with_client(wordle(tmp_path), proximal=mu)
        model = ValueTask(config, 0).initial_model()
        client = client_of(config)
        done = client.train(model, work(30))
        moved.append(distance(done.tensors, model))
        assert ("penalty" in done.stats) == (mu > 0)
        # The next assignment is held to the next model.
        zero = {name: np.zeros_like(part) for name, part in model.items()}
        assert client.train(zero, work(1)).stats.get("penalty", 0.0) == 0.0
    assert moved[0] > moved[1] > 3 * moved[2]


def test_the_scheduler_may_scale_the_rate(tmp_path: Path) -> None:
    config = wordle(tmp_path)
    model = ValueTask(config, 0).initial_model()
    whole, half = (client_of(config).train(model, work(1, rate_scale=scale)) for scale in (1.0, 0.5))
    assert half.stats["learning_rate"] == pytest.approx(0.5 * whole.stats["learning_rate"])
    assert distance(half.tensors, model) == pytest.approx(0.5 * distance(whole.tensors, model), rel=1e-3)


def test_what_is_kept_between_assignments(tmp_path: Path) -> None:
    """Moments by choice; never averages of old weights; schedules and replay go on."""
    schedule = {"kind": "linear", "start": 4e-3, "end": 0.0}
    base = wordle(tmp_path, learner={"learning_rate": schedule, "warmup_updates": 0, "target_update_every": 0})
    base = with_client(base, schedule_steps=20)
    model = ValueTask(base, 0).initial_model()
    moments = {}
    for keep in (True, False):
        client = client_of(with_client(base, keep_optimiser=keep))
        first = client.train(model, work(10, 0))
        filled = len(client._replay)
        again = client.train(model, work(10, 1))
        assert len(client._replay) > filled
        assert first.stats["learning_rate"] == pytest.approx(4e-3 * (1 - 0.45 / 2), rel=1e-6)
        assert again.stats["learning_rate"] == pytest.approx(4e-3 * (0.5 - 0.45 / 2), rel=1e-6)
        state = client._learner.state_dict()
        moments[keep] = float(next(iter(state["adam"].values()))["step"])
        client.train(model, work(1, 2))
        assert client._learner.updates == 21
        # At the end of the schedule the rate is 0: the averages are then where the restart put them.
        for name, part in client._learner.policy_tensors().items():
            np.testing.assert_array_equal(part, model[name])
    assert moments == {True: 20.0, False: 10.0}


def test_every_local_step_is_told(tmp_path: Path) -> None:
    config, told = wordle(tmp_path), []
    client = client_of(config)
    client.train(ValueTask(config, 0).initial_model(), work(7, after_step=lambda: told.append(client._learner.updates)))
    assert told == list(range(1, 8))


def test_cartpole_clients_with_different_poles_share_a_model() -> None:
    config = ValueTaskConfig.model_validate(CARTPOLE)
    task = ValueTask(config, 0)
    model = task.initial_model()
    for index in range(2):
        client = client_of(config, index)
        assert client.samples == 1
        for sequence in range(3):
            done = client.train(model, work(40, sequence))
            model = done.tensors
        assert done.stats["episode_length"] > 5
        score = client.evaluate(model, 5, stream(0, "evaluate"))
        assert score == client.evaluate(model, 5, stream(0, "evaluate"))
        client.close()
    figures = task.evaluate(model)
    assert figures["score"] == pytest.approx((figures["return_0"] + figures["return_1"]) / 2)
    assert figures["return_0"] != figures["return_1"]
    assert figures == task.evaluate(model)
    assert figures.keys() == task.evaluate_final(model).keys()


def test_a_client_fills_its_replay_before_it_learns() -> None:
    config = ValueTaskConfig.model_validate(CARTPOLE)
    client = client_of(config)
    done = client.train(ValueTask(config, 0).initial_model(), work(1))
    assert 200 <= len(client._replay) < 300
    assert done.stats["env_steps"] >= 200


def test_environments_that_give_no_transitions_are_an_error_and_no_standstill() -> None:
    sections = {**CARTPOLE, "replay": {"returns": "monte_carlo", "min_size": 2, "capacity": 10, "batch_size": 1}}
    sections["environment"] = {"kind": "gymnasium", "id": "isogon/CartPole-v1", "max_episode_steps": 2}
    config = ValueTaskConfig.model_validate(sections)
    with pytest.raises(ValueError, match="episodes that are cut off give none"):
        client_of(config).train(ValueTask(config, 0).initial_model(), work(1))


def test_a_model_of_another_network_is_refused(tmp_path: Path) -> None:
    client = client_of(wordle(tmp_path))
    other = ValueTask(wordle(tmp_path, network={"kind": "letter_tied", "hidden": 8, "channels": 2}), 0).initial_model()
    with pytest.raises(ValueError, match="another network"):
        client.train(other, work(1))
    with pytest.raises(ValueError, match="another network"):
        client.evaluate(other, 1, stream(0, "evaluate"))


def test_a_task_is_small_when_sent_and_the_same_where_it_arrives(tmp_path: Path) -> None:
    task = ValueTask(wordle(tmp_path), 3)
    model = task.initial_model()
    task.evaluate(model)
    sent = pickle.dumps(task)
    assert len(sent) < 10_000
    program = (
        "import pickle, sys; task = pickle.loads(sys.stdin.buffer.read());"
        "sys.stdout.buffer.write(pickle.dumps((dict(task.initial_model()), dict(task.evaluate(task.initial_model())),"
        "'ray' in sys.modules)))"
    )
    there = subprocess.run([sys.executable, "-c", program], input=sent, capture_output=True, check=True).stdout
    first, figures, loaded_ray = pickle.loads(there)
    for name, part in model.items():
        np.testing.assert_array_equal(part, first[name])
    assert figures == task.evaluate(model)
    assert not loaded_ray
    assert distance(model, ValueTask(wordle(tmp_path), 4).initial_model()) > 0


def test_the_final_evaluation_plays_the_never_seen_words(tmp_path: Path) -> None:
    task = ValueTask(wordle(tmp_path), 0)
    model = task.initial_model()
    figures = task.evaluate_final(model)
    assert figures["score"] == figures["never_seen_return"]
    assert figures["validation_return"] == task.evaluate(model)["score"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"silos": CARTPOLE["silos"]}, "silos.kind is environment and environment.kind wordle"),
        ({"network": {"kind": "mlp"}}, "whose weights are of one list of words"),
        ({"value": {"form": "tilt", "bins": 13, "vmin": "auto", "vmax": 0.0}}, "auto, which each client"),
        ({"value": {"form": "tilt", "bins": 13, "vmin": -1, "vmax": 1, "normalise_returns": True}}, "no mean"),
        ({"value": {"bins": 13, "vmin": -6.0, "vmax": 0.0}}, "value.form must be tilt"),
    ],
)
def test_what_cannot_be_federated_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        wordle(tmp_path, **changed)


def test_each_client_needs_its_environment() -> None:
    config = ValueTaskConfig.model_validate(CARTPOLE)
    with pytest.raises(ValueError, match=r"silos.kwargs has 2 entries and there are 3 clients"):
        client_of(config, clients=3)


def test_noise_on_weights_is_drawn_for_each_rollout_from_the_works_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.random.Generator | None] = []
    rollouts: list[int] = []
    run = Rollout.run

    def counted(rollout: Rollout, *arguments: Any, **named: Any) -> Any:
        rollouts.append(len([each for each in drawn if each is not None]))
        return run(rollout, *arguments, **named)

    monkeypatch.setattr(QPolicy, "draw_noise", lambda policy, generator: drawn.append(generator))
    monkeypatch.setattr(Rollout, "run", counted)
    config = ValueTaskConfig.model_validate({**CARTPOLE, "value": {**CARTPOLE["value"], "noisy_sigma": 0.5}})
    piece = work(8)
    client_of(config).train(ValueTask(config, 0).initial_model(), piece)
    assert rollouts
    assert rollouts == list(range(1, len(rollouts) + 1))
    assert all(each is piece.generator for each in drawn if each is not None)


MINATAR: dict[str, Any] = {
    "kind": "value",
    "environment": {"kind": "minatar", "game": "breakout", "full_action_space": True, "planes": 10},
    "network": {"kind": "minatar", "hidden": 16},
    "value": {"bins": 21, "vmin": -1.0, "vmax": 10.0},
    "silos": {"kind": "environment", "kwargs": [{"game": "breakout"}, {"game": "asterix", "sticky_actions": 0.5}]},
}


def of_minatar(environment: dict[str, Any] | None = None, kwargs: list[dict[str, Any]] | None = None) -> ValueTask:
    base = {**MINATAR["environment"], **(environment or {})}
    silos = {**MINATAR["silos"], **({} if kwargs is None else {"kwargs": kwargs})}
    return ValueTask(ValueTaskConfig.model_validate({**MINATAR, "environment": base, "silos": silos}), 0)


def test_clients_have_a_game_each() -> None:
    task = of_minatar()
    task.check_silos()
    scores = task.evaluate(task.initial_model())
    assert set(scores) == {"score", "return_0", "return_1"}
    games = [each.model_dump() for each in task._environments(EnvironmentSilos.model_validate(MINATAR["silos"]))]
    assert [(game["game"], game["sticky_actions"], game["planes"]) for game in games] == [
        ("breakout", 0.1, 10),
        ("asterix", 0.5, 10),
    ]


@pytest.mark.parametrize(
    ("environment", "kwargs", "message"),
    [
        ({"full_action_space": False}, None, r"silos\.kwargs\[1\] is minatar asterix with 5 actions, and environment "),
        (
            {"planes": None},
            [{}, {"game": "freeway"}],
            r"are uint8\[7, 10, 10\], and those of minatar breakout are uint8\[4",
        ),
        ({}, [{}, {"gaem": "asterix"}], r"silos\.kwargs\[1\]: gaem is 'asterix', in what is laid over environment of "),
        (
            {"planes": 7},
            [{}, {"game": "seaquest"}],
            r"silos\.kwargs\[1\]: environment\.planes is 7, and seaquest has 10",
        ),
    ],
)
def test_games_that_one_network_cannot_serve_are_refused(
    environment: dict[str, Any], kwargs: list[dict[str, Any]] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        of_minatar(environment, kwargs).check_silos()


def test_a_client_on_atari_keeps_all_that_it_plays() -> None:
    """However long its rollouts are: frames wait in the replay until the transitions over them are complete."""
    config = ValueTaskConfig.model_validate(
        {
            "kind": "value",
            "environment": {"kind": "atari", "game": "pong"},
            "network": {"kind": "nature", "hidden": 8},
            "value": {"bins": 21, "vmin": -1.0, "vmax": 1.0},
            "replay": {"capacity": 4000, "min_size": 100, "batch_size": 4, "n_step": 3},
            "silos": {"kind": "environment", "kwargs": [{}, {"sticky_actions": 0.5}]},
            "client": {"envs": 8, "steps_per_rollout": 2048, "env_steps_per_update": 0},
        }
    )
    client = client_of(config, index=1)
    client.train(ValueTask(config, 0).initial_model(), work(1))
    # All but the last two steps of each environment, whose third reward is not there yet.
    assert len(client._replay) == 2048 - 2 * 8
    client.close()
