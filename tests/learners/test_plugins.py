"""Own code named in a config: what is wrong with it is told in one line that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from isogon.learners.encodings import ArraySpec, EncodingConfig, EnvironmentSpec
from isogon.learners.learner import GREEDY
from isogon.learners.networks import CustomNetworkConfig, MLPConfig, build_value_module
from isogon.learners.plugins import Plugin, PluginConfig, PluginError
from isogon.learners.policy import build_policy
from isogon.learners.q_learning import QLearner
from isogon.learners.q_learning_config import QLearningConfig
from isogon.learners.randomness import stream
from isogon.learners.values import ValueConfig

SPEC = EnvironmentSpec("toy", {"cell": ArraySpec((3,), "float32"), "door": ArraySpec((), "int64")}, 2)
VALUE = ValueConfig(kind="mse")
HEAD = "import torch\nfrom torch import nn\nfrom isogon.learners.encodings import ArraySpec\n"
TORSO = (
    HEAD
    + """
class Torso(nn.Module):
    def __init__(self, spec, width=4):
        super().__init__()
        self.features = width
        self.layer = nn.Sequential(nn.Linear(3, width), nn.Dropout(0.5), nn.BatchNorm1d(width))

    def forward(self, observation):
        return self.layer(observation["cell"])
"""
)
ENCODING = (
    HEAD
    + """
class Encoding:
    def __init__(self, spec):
        self.observation = {"both": ArraySpec((4,), "float32")}

    def __call__(self, observation):
        return {"both": torch.cat([observation["cell"], observation["door"][:, None].float()], dim=1)}
"""
)
COUNT = iter(range(1000))


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module under a name of its own beside the user, and gives that name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str) -> str:
        name = f"own_code_{next(COUNT)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (
            None,
            "Torso",
            "x.class nowhere.to_be:Torso: there is no module nowhere in the working folder /.*on PYTHONPATH",
        ),
        ("import nothing_of_this_name\n", "A", r": its import raised ModuleNotFoundError: .* \(own_code_\d+.py:1\)"),
        ("x = (\n", "A", r": its import raised SyntaxError: .* \(own_code_\d+.py:1\)"),
        (
            "class Torso: pass\n",
            "Toros",
            r": module own_code_\d+ \(own_code_\d+.py\) has no Toros: did you mean Torso\?",
        ),
        ("Torso = 3\n", "Torso", ": it is a int, expected a class"),
        ("class A:\n def __init__(self, b, c=1): pass\n", "A", r"called with \(d=...\) and takes \(b, c=1\): missing"),
        (
            "class A:\n def __init__(self, d):\n  1 / 0\n",
            "A",
            r"construction raised ZeroDivisionError: .*own_code_\d+.py:3\)",
        ),
    ],
)
def test_what_cannot_be_made_is_named_in_one_line(write: Any, text: str | None, path: str, message: str) -> None:
    module = "nowhere.to_be" if text is None else write(text)
    with pytest.raises(PluginError, match=message) as caught:
        Plugin("x", f"{module}:{path}").make(d=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["torso", "my_net.Torso", "my-net:Torso", ":Torso", "my_net:", "a:b:c"])
def test_a_name_without_module_and_class_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="expected module:Class"):
        PluginConfig(class_=name)


def build(write: Any, torso: str | None = None, encoding: str | None = None, seed: int = 0, **kwargs: Any) -> Any:
    network = CustomNetworkConfig(class_=f"{write(torso)}:Torso", kwargs=kwargs) if torso else MLPConfig(hidden=(5,))
    encoded = EncodingConfig(class_=f"{write(encoding)}:Encoding") if encoding else None
    return build_value_module(network, VALUE, SPEC, torch.Generator().manual_seed(seed), encoded)


def test_first_weights_hang_on_the_seed_alone_and_leave_torch_as_it_was(write: Any) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build(write, TORSO, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    name = "torso.module.layer.0.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert not first["torso.module.layer.2.running_mean"].any(), "the try-out went into the running averages"
    assert int(first["torso.module.layer.2.num_batches_tracked"]) == 0


def test_an_encoding_gives_what_any_network_reads(write: Any) -> None:
    module = build(write, encoding=ENCODING)
    assert module.torso.torso.layers[0].in_features == 4
    observation = {"cell": torch.rand(3, 3), "door": torch.arange(3)}
    wanted = module.torso.torso({"both": torch.cat([observation["cell"], torch.arange(3.0)[:, None]], dim=1)})
    assert torch.equal(module.torso(observation), wanted)


def test_dropout_and_batch_norm_act_and_follow(write: Any) -> None:
    """The acting copy drops nothing, and knows the averages that training has seen."""
    learner = QLearner(build(write, TORSO), QLearningConfig(warmup_updates=0), stream(0, "learner"))
    batch = {
        "observation_tm1": {"cell": torch.rand(32, 3) + 5, "door": torch.zeros(32, dtype=torch.int64)},
        "action_tm1": torch.zeros(32, dtype=torch.int64),
        "reward_t": torch.rand(32),
        "discount_t": torch.zeros(32),
    }
    for _ in range(30):
        learner.update(batch, 0.0)
    tensors = learner.policy_tensors()
    running = tensors["torso.module.layer.2.running_mean"]
    assert (running == learner.state_dict()["module"]["torso.module.layer.2.running_mean"].numpy()).all()
    assert running.any()
    hidden = [learner.policy().module.torso(batch["observation_tm1"]) for _ in range(2)]
    assert torch.equal(*hidden)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nn.Module", "object", "it gave a Torso, expected a torch.nn.Module"),
        ("self.features = width", "pass", "it lacks the attribute features: expected an int"),
        ("self.features = width", "self.features = 4.0", "it has features 4.0: expected an int"),
        (
            "self.features = width",
            "self.features = width + 1",
            r"forward gave float32\[2, 4\], expected float32\[2, 5\]",
        ),
        (
            'self.layer(observation["cell"])',
            "observation['cell'].sum()",
            r"forward gave float32\[\], expected float32\[2, 4\]",
        ),
        ('self.layer(observation["cell"])', "None", r"forward gave a NoneType, expected float32\[2, 4\]"),
        ('observation["cell"])', 'observation["cell"]).double()', r"forward gave float64\[2, 4\], expected float32"),
        ('observation["cell"]', 'observation["cells"]', r"forward raised KeyError: 'cells' \(own_code_\d+.py:12\)"),
        ("Linear(3, width)", "Linear(2, width)", r"forward raised RuntimeError: mat1 .* \(own_code_\d+.py:12\)"),
    ],
)
def test_a_network_that_is_none_is_refused(write: Any, old: str, new: str, message: str) -> None:
    assert old in TORSO
    text = TORSO.replace(old, new)
    if new == "object":
        text = text.replace("super().__init__()", "pass")
    with pytest.raises(PluginError, match=rf"network.class own_code_\d+:Torso: {message}"):
        build(write, text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("self.observation = ", "self.fields = ", "its attribute observation must tell the fields"),
        ("(4,)", "(5,)", r"it gave 'both' as float32\[2, 4\], expected float32\[2, 5\]"),
        ('return {"both"', 'return {"all"', "it gave the field 'all', expected the field 'both'"),
        ("return {", "return 3; {", "it gave a int, expected a mapping with the field 'both'"),
        ("def __call__", "def call", "it lacks the method __call__"),
        ("dim=1", "dim=7", r"encoding a batch raised IndexError: .* \(own_code_\d+.py:10\)"),
    ],
)
def test_an_encoding_that_is_none_is_refused(write: Any, old: str, new: str, message: str) -> None:
    assert old in ENCODING
    with pytest.raises(PluginError, match=rf"encoding.class own_code_\d+:Encoding: {message}"):
        build(write, encoding=ENCODING.replace(old, new))


def test_a_policy_acts_through_both(write: Any) -> None:
    network = CustomNetworkConfig(class_=f"{write(TORSO.replace('cell', 'both').replace('(3,', '(4,'))}:Torso")
    policy = build_policy(network, VALUE, SPEC, 2, EncodingConfig(class_=f"{write(ENCODING)}:Encoding"))
    learner_module = build_value_module(
        network, VALUE, SPEC, torch.Generator().manual_seed(3), EncodingConfig(class_=f"{write(ENCODING)}:Encoding")
    )
    policy.load_tensors({name: part.numpy() for name, part in learner_module.state_dict().items()})
    observation: dict[str, np.ndarray] = {
        "cell": np.random.default_rng(0).random((6, 3), np.float32),
        "door": np.arange(6),
    }
    action = policy.act(observation, None, GREEDY, stream(0, "act"))
    tensors = {name: torch.from_numpy(part) for name, part in observation.items()}
    learner_module.eval()
    assert (action == learner_module.head.best(learner_module.torso(tensors), None)[1].numpy()).all()
