"""Noisy layers: against Fortunato et al. 2018 in float64, in the fused losses, and where noise is drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from isogon import load_config
from isogon.actors.worker import Worker
from isogon.learners.batch import Batch
from isogon.learners.encodings import ArraySpec, EnvironmentSpec
from isogon.learners.learner import GREEDY
from isogon.learners.networks import MLPConfig, ValueModule, build_value_module
from isogon.learners.policy import QPolicy
from isogon.learners.q_learning import QLearner
from isogon.learners.q_learning_config import QLearningConfig
from isogon.learners.randomness import stream
from isogon.learners.schedules import Schedule
from isogon.learners.state import encode_state
from isogon.learners.values import FullMap, ValueConfig, ValueHead, build_head
from isogon.learners.values.dueling import Dueling
from isogon.learners.values.forms import Layer
from isogon.learners.values.noise import FactorisedNoise
from isogon.schedulers.events import Assign, Token, WorkKind
from isogon.system.config.files import ConfigError

from ..actors.toys import Shift, corridor_spec, weights

FEATURES, ACTIONS, BINS = 12, 5, 21
SPEC = EnvironmentSpec("plain", {"place": ArraySpec((3,), "float32")}, 4)


def value_config(**fields: Any) -> ValueConfig:
    return ValueConfig.model_validate({"bins": BINS, "vmin": -2.0, "vmax": 2.0, **fields})


def head(**fields: Any) -> ValueHead:
    made = build_head(
        value_config(**{"noisy_sigma": 0.5, **fields}), FEATURES, ACTIONS, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        for part in made.parameters():
            part.copy_(torch.randn(part.shape, generator=torch.Generator().manual_seed(part.numel())) * 0.5)
    return made


def layer_of(made: ValueHead, features: torch.Tensor) -> Layer:
    return made.form.layer(features) or pytest.fail("no layer")


def by_equations_9_to_11(
    weight: torch.Tensor, bias: torch.Tensor, noise: FactorisedNoise, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A noisy map's weight and bias in float64, one number after another."""

    def f(x: Any) -> float:
        return math.copysign(math.sqrt(abs(x)), x)

    of_inputs = generator.standard_normal(weight.shape[-1], np.float32)
    of_outputs = generator.standard_normal(tuple(bias.shape), np.float32)
    made, own = weight.detach().double().numpy(), bias.detach().double().numpy()
    weight_sigma, bias_sigma = (each.detach().double().numpy() for each in (noise.weight_sigma, noise.bias_sigma))
    for output in np.ndindex(*bias.shape):
        own[output] += bias_sigma[output] * f(of_outputs[output])
        for entry in range(weight.shape[-1]):
            made[(*output, entry)] += weight_sigma[(*output, entry)] * f(of_outputs[output]) * f(of_inputs[entry])
    return made, own


@pytest.mark.parametrize("units", [None, 7])
def test_dueling_streams_are_noisy_maps_of_the_equations(units: int | None) -> None:
    made = head(form="dueling", stream_units=units)
    form = made.form
    assert isinstance(form, Dueling)
    assert form.state_noise is not None
    assert form.action_noise is not None
    form.draw_noise(stream(1, "noise"))
    again = stream(1, "noise")
    state_weight, state_bias = by_equations_9_to_11(form.state_weight, form.state_bias, form.state_noise, again)
    action_weight, action_bias = by_equations_9_to_11(form.action_weight, form.action_bias, form.action_noise, again)
    features = torch.randn(9, FEATURES, generator=torch.Generator().manual_seed(1))
    state = action = features.double().numpy()
    if form.streams is not None:
        state, action = np.split(form.streams(features).detach().double().numpy(), 2, axis=1)
    value = state @ state_weight.T + state_bias
    advantage = np.einsum("bu,awu->baw", action, action_weight) + action_bias
    expected = torch.from_numpy(value[:, None] + advantage - advantage.mean(axis=1, keepdims=True))
    logits = form.logits_shared(features, torch.arange(ACTIONS))
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_full_map_is_the_noisy_map_of_the_equations() -> None:
    made = head()
    form = made.form
    assert isinstance(form, FullMap)
    assert form.noise is not None
    form.draw_noise(stream(1, "noise"))
    weight, bias = by_equations_9_to_11(form.weight, form.bias, form.noise, stream(1, "noise"))
    features = torch.randn(9, FEATURES, generator=torch.Generator().manual_seed(1))
    _, noisy_weight, noisy_bias = layer_of(made, features)
    torch.testing.assert_close(noisy_weight.double(), torch.from_numpy(weight), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(noisy_bias.double(), torch.from_numpy(bias), rtol=1e-6, atol=1e-6)


def test_noise_begins_with_sigma_over_the_root_of_the_inputs() -> None:
    noise = FactorisedNoise((50,), 100, 0.5)
    generator, zeros = stream(0, "noise"), (torch.zeros(50, 100), torch.zeros(50))
    drawn = []
    for _ in range(200):
        noise.draw(generator)
        drawn.append(torch.cat([part.detach().flatten() for part in noise(*zeros)]))
    seen = torch.stack(drawn)
    # Of |e| the mean is sqrt(2 / pi), and a weight's variance is the product of two of them.
    assert float(seen[:, :5000].std()) == pytest.approx(0.05 * math.sqrt(2 / math.pi), rel=0.03)
    assert float(seen[:, 5000:].std()) == pytest.approx(0.05 * (2 / math.pi) ** 0.25, rel=0.03)
    assert abs(float(seen.mean())) < 0.001


@pytest.mark.parametrize("form", ["full", "dueling"])
@pytest.mark.parametrize("kind", ["hl_gauss", "c51", "mse"])
def test_kernels_see_the_noisy_weights_and_both_parts_learn(form: str, kind: str) -> None:
    made = head(form=form, kind=kind)
    made.form.draw_noise(stream(2, "noise"))
    states = 1 + 2**20 // (ACTIONS * BINS)
    features = torch.randn(states, FEATURES, generator=torch.Generator().manual_seed(1))
    _, weight, bias = layer_of(made, features[:1])
    plain = head(form="full", kind=kind, noisy_sigma=None)
    with torch.no_grad():
        plain.form.weight.copy_(weight)  # type: ignore[operator]
        plain.form.bias.copy_(bias)  # type: ignore[operator]
        torch.testing.assert_close(made.values(features), plain.values(features), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(made.best(features)[0], plain.best(features)[0], rtol=1e-4, atol=1e-4)
    if kind == "c51":
        return
    row, action, target = torch.arange(6), torch.arange(6) % ACTIONS, torch.linspace(-1.5, 1.5, 6)
    losses = [each.loss(features[:6], row, action, target).loss for each in (made, plain)]
    torch.testing.assert_close(*losses)
    losses[0].sum().backward()  # type: ignore[no-untyped-call]
    for name, part in made.named_parameters():
        assert part.grad is not None, name
        assert float(part.grad.abs().max()) > 0, name


def test_without_noisy_layers_nothing_is_drawn() -> None:
    generator = stream(0, "noise")
    head(noisy_sigma=None).form.draw_noise(generator)
    assert generator.random() == stream(0, "noise").random()


# The learner.


def learner(**config: Any) -> QLearner:
    settings = QLearningConfig(learning_rate=Schedule(start=1e-2), warmup_updates=0, **config)
    return QLearner(module(), settings, stream(0, "learner"))


def module(sigma: float | None = 0.5) -> ValueModule:
    value = value_config(noisy_sigma=sigma)
    return build_value_module(MLPConfig(hidden=(16,)), value, SPEC, torch.Generator().manual_seed(0))


def batch(seed: int = 0, count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    places = torch.randn(2, count, 3, generator=generator)
    return {
        "observation_tm1": {"place": places[0]},
        "action_tm1": torch.arange(count) % 4,
        "reward_t": torch.linspace(-1, 1, count),
        "discount_t": torch.full((count,), 0.9),
        "observation_t": {"place": places[1]},
    }


@pytest.mark.parametrize("every", [0, 4])
def test_each_loss_has_noise_of_its_own_in_both_networks(every: int) -> None:
    one = learner(target_update_every=every)
    slow = one._target if every else one._average
    features = torch.ones(1, 16)
    seen = []
    for _ in range(2):
        one.loss(batch())
        for each in (one._plain, slow):
            _, weight, _ = layer_of(each.head, features)
            # Both networks have the first weights still, so that what differs is the noise.
            seen.append(weight.detach() - one._plain.head.form.weight.detach())  # type: ignore[operator]
    assert all(float(noise.abs().max()) > 0.01 for noise in seen)
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_the_next_action_is_chosen_with_noise_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the loss the online network has other noise than when it chose."""
    one, seen = learner(), []

    def choose(online: ValueModule, *_: object, double_q: bool) -> torch.Tensor:
        seen.append(layer_of(online.head, torch.ones(1, 16))[1])
        return torch.zeros(8)

    monkeypatch.setattr("isogon.learners.q_learning.bootstrapped_target", choose)
    one.loss(batch())
    assert not torch.equal(seen[0], layer_of(one._plain.head, torch.ones(1, 16))[1])


@pytest.mark.parametrize("every", [0, 4])
def test_states_and_published_weights_carry_no_noise(every: int) -> None:
    one = learner(target_update_every=every)
    one.update(batch(), 0.0)
    before = encode_state(one.state_dict()), [part.clone() for part, _ in one.shared().values()]
    tensors = one.policy_tensors()
    for each in (one._plain, one._target, one._average):
        each.head.form.draw_noise(stream(9, "other"))
    assert encode_state(one.state_dict()) == before[0]
    assert all(torch.equal(part, old) for (part, _), old in zip(one.shared().values(), before[1], strict=True))
    assert {name for name in tensors if "noise" in name} == {
        "head.form.noise.weight_sigma",
        "head.form.noise.bias_sigma",
    }
    assert list(dict(one._plain.named_buffers())) == []
    # A policy is quiet from the first, whatever the averaged network has just been used for.
    features = torch.ones(1, 16)
    assert torch.equal(layer_of(one.policy().module.head, features)[1], one._average.head.form.weight)  # type: ignore[arg-type]


def test_sigmas_are_learnt_and_averaged() -> None:
    one = learner()
    first = one.policy_tensors()["head.form.noise.weight_sigma"]
    for seed in range(20):
        one.update(batch(seed), 0.0)
    online, average = (
        dict(each.named_parameters())["head.form.noise.weight_sigma"] for each in (one._plain, one._average)
    )
    assert float(average.detach().std()) > 1e-4
    assert (first == first.flat[0]).all()
    assert not torch.equal(online, average)


# Those who play.


def played(policy: QPolicy, generator: np.random.Generator | None) -> bytes:
    """Greedy actions in 200 states, with noise drawn anew."""
    policy.draw_noise(generator)
    states = np.random.default_rng(0).standard_normal((200, 3), np.float32)
    actions = [
        policy.act({"place": part}, None, GREEDY, np.random.default_rng(0)) for part in (states[:100], states[100:])
    ]
    return np.concatenate(actions).tobytes()


def test_noise_stays_until_it_is_drawn_anew() -> None:
    policy, quiet = QPolicy(module(), 4), QPolicy(module(None), 4)
    without = played(quiet, None)
    assert played(policy, None) == without
    generator = stream(0, "explore")
    first, second = played(policy, generator), played(policy, generator)
    assert len({without, first, second}) == 3
    assert played(policy, stream(0, "explore")) == first
    published = {name: part.numpy() for name, part in module().state_dict().items()}
    policy.load_tensors(published)
    states = np.random.default_rng(0).standard_normal((200, 3), np.float32)
    assert policy.act({"place": states}, None, GREEDY, generator).tobytes() == first, "new weights, the same noise"
    assert played(policy, None) == without


class Drawing(Shift):
    """Plays, and notes what noise it is told to draw."""

    told: ClassVar[list[float | None]] = []

    def draw_noise(self, generator: np.random.Generator | None) -> None:
        Drawing.told.append(None if generator is None else float(generator.random()))


def test_a_worker_draws_once_for_each_rollout_and_evaluates_without() -> None:
    worker = Worker(0, replace(corridor_spec(), policy=Drawing, seed=7))

    def work(sequence: int, kind: WorkKind) -> list[float | None]:
        Drawing.told.clear()
        worker.run(Assign("env-0", Token(1, "env-0", sequence), kind, 8, 1), weights(1, epsilon=0.0))
        return list(Drawing.told)

    rollouts = [work(0, "rollout"), work(1, "evaluate"), work(2, "rollout")]
    explore = stream(7, "explore", 0, 0)
    assert rollouts == [[explore.random()], [None], [explore.random()]]


@pytest.mark.parametrize(
    ("preset", "overrides", "said"),
    [
        ("wordle", ["value.noisy_sigma=0.5"], r"noisy_sigma is 0\.5 and form tilt.*set form to full or dueling"),
        ("cartpole", ["value.noisy_sigma=0"], r"value\.noisy_sigma"),
    ],
)
def test_what_does_not_go_with_noise_is_said(preset: str, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(preset, overrides)


def test_noise_over_bins_spaced_by_symexp_is_refused() -> None:
    with pytest.raises(ValueError, match=r"value\.noisy_sigma is 0\.5 and value\.transform symexp"):
        head(kind="two_hot", transform="symexp")
