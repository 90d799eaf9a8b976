"""Classification as a federation's task: the shipped digits, data of one's own, clients and the server's test."""

from __future__ import annotations

import hashlib
import pickle
import runpy
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from isogon.actors.federation import digits
from isogon.actors.federation.classification import ClassifierTask
from isogon.actors.federation.client import LocalWork, Silo
from isogon.actors.federation.config import ClassifierConfig, DigitsConfig
from isogon.learners.plugins import PluginError
from isogon.learners.randomness import stream

FOLDER = Path(digits.__file__).parent
COUNT = count()


def task(seed: int = 0, **config: Any) -> ClassifierTask:
    return ClassifierTask(TypeAdapter(ClassifierConfig).validate_python(config), seed)


def silo(index: int = 0, clients: int = 10, seed: int = 0) -> Silo:
    return Silo(f"client-{index}", index, clients, seed)


def test_the_digits_are_those_of_uci() -> None:
    images, labels = digits.load_digits()
    assert (images.shape, labels.shape) == ((1797, 64), (1797,))
    assert (images.dtype.name, labels.dtype.name) == ("float32", "int64")
    stored = (images * digits.DARKEST).astype(np.uint8).tobytes() + labels.astype(np.uint8).tobytes()
    assert hashlib.sha256(stored).hexdigest() == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (images.min(), images.max()) == (0, 1)


def test_make_digits_makes_the_shipped_file(tmp_path: Path) -> None:
    images, labels = digits.load_digits()
    script = tmp_path / "make_digits.py"
    script.write_bytes((FOLDER / "make_digits.py").read_bytes())
    table = np.column_stack([images * digits.DARKEST, labels])
    np.savetxt(tmp_path / "optdigits.tes", table, fmt="%d", delimiter=",")
    subprocess.run([sys.executable, str(script), str(tmp_path / "optdigits.tes")], check=True, timeout=60)
    with np.load(tmp_path / "digits.npz") as made, np.load(FOLDER / "digits.npz") as shipped:
        assert all((made[name] == shipped[name]).all() for name in ("images", "labels"))
    read = runpy.run_path(str(FOLDER / "make_digits.py"))["read_digits"]
    np.savetxt(tmp_path / "other", table + 0.5, delimiter=",")
    with pytest.raises(ValueError, match="pixels that are no whole numbers from 0 to 16"):
        read(tmp_path / "other")
    np.savetxt(tmp_path / "narrow", table[:, :9], delimiter=",")
    with pytest.raises(ValueError, match=r"shape \[1797, 9\]"):
        read(tmp_path / "narrow")


def test_clients_and_server_share_the_digits_out() -> None:
    for partition in ({"kind": "even"}, {"kind": "classes"}, {"kind": "dual_dirichlet", "least_samples": 5}):
        whole = task(data={"kind": "digits", "partition": partition})
        clients = [whole.make_client(silo(index)) for index in range(10)]
        assert sum(client.samples for client in clients) == 1437
        assert whole._test is not None
        assert len(whole._test) == 360
        rows = np.concatenate([*(client._train.inputs for client in clients), whole._test.inputs])
        assert len(np.unique(rows, axis=0)) == len(np.unique(digits.load_digits()[0], axis=0))
        other = whole.make_client(silo(seed=1))
        assert other._train.inputs.tobytes() != clients[0]._train.inputs.tobytes()


def test_centralised_training_learns() -> None:
    central = task(data={"kind": "digits", "partition": {"kind": "even"}})
    model = central.initial_model()
    assert central.evaluate(model)["score"] < 0.3
    client = central.make_client(silo(clients=1))
    for number in range(15):
        trained = client.train(model, LocalWork(100, 1, stream(0, "work", number)))
        model = trained.tensors
    assert central.evaluate(model)["score"] > 0.93
    assert client.evaluate(model, 1, stream(0, "any"))["score"] > 0.93
    assert 0 < trained.stats["loss"] < 0.5


def test_a_task_crosses_to_another_process_small_and_alike() -> None:
    here = task(hidden=(12,), data={"kind": "digits", "partition": {"kind": "classes"}})
    model = here.initial_model()
    here.make_client(silo())
    here.evaluate(model)
    sent = pickle.dumps(here)
    assert len(sent) < 2000
    there = pickle.loads(sent)
    assert all((there.initial_model()[name] == array).all() for name, array in model.items())
    assert here.kinds() == dict.fromkeys(model, "mean")
    works = [LocalWork(20, 1, stream(0, "work")) for _ in range(2)]
    trained = [each.make_client(silo(3)).train(model, work) for each, work in zip((here, there), works, strict=True)]
    assert all((trained[0].tensors[name] == trained[1].tensors[name]).all() for name in model)
    assert there.evaluate(model) == here.evaluate(model)
    assert any((task(1, hidden=(12,)).initial_model()[name] != model[name]).any() for name in model)


def test_a_client_may_keep_samples_for_testing() -> None:
    whole = task(test_share=0.25, data={"kind": "digits", "partition": {"kind": "even"}})
    client = whole.make_client(silo())
    assert (client.samples, len(client._test)) == (108, 36)
    assert not {tuple(row) for row in client._test.inputs} & {tuple(row) for row in client._train.inputs}
    few = task(test_share=0.25, data={"kind": "digits", "partition": {"kind": "even"}})
    with pytest.raises(ValueError, match=r"client-0 has 1 samples: test_share 0.25 of them leaves none"):
        few.make_client(silo(clients=1437))


def test_too_many_clients_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2000 clients share 1437 samples.*fewer clients"):
        task().make_client(silo(clients=2000))
    narrow = task(data={"kind": "digits", "partition": {"kind": "dual_dirichlet", "class_alpha": 0.001}})
    with pytest.raises(ValueError, match=r"client \d+ .* of 300 is left without data"):
        narrow.make_client(silo(clients=300))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"data": {"kind": "digits", "partition": {"kind": "classes", "fewest": 6}}}, "fewest is 6 and most 5"),
        ({"learning_rate": 0.5, "proximal": 3}, "learning_rate . proximal is 1.5"),
        ({"test_share": 1.0}, "less than 1"),
        ({"hidden": [0]}, "greater than or equal to 1"),
        ({"data": {"kind": "mnist"}}, "kind"),
    ],
)
def test_bad_config_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        task(**config)


def test_the_defaults_are_the_set_up_of_the_simulation() -> None:
    config = ClassifierConfig()
    assert (config.hidden, config.learning_rate, config.batch_size, config.proximal) == ((32,), 0.02, 32, 0.0)
    assert isinstance(config.data, DigitsConfig)


def test_synthetic_data_are_for_any_number_of_clients_and_can_be_learnt() -> None:
    whole = task(data={"kind": "synthetic"}, learning_rate=0.1)
    clients = [whole.make_client(silo(index, clients=10**6)) for index in (*range(300), 999_999)]
    sizes = np.array([client.samples for client in clients])
    assert np.median(sizes) == pytest.approx(100, rel=0.1)
    assert np.log(sizes).std() == pytest.approx(0.5, rel=0.15)
    mixes = np.array([client._train.one_hot.mean(axis=0) for client in clients])
    # Each share is Beta(0.1, 0.9) of mean 0.1, and drawing n samples adds p (1 - p) / n.
    assert mixes.var() == pytest.approx(0.1 * 0.9 / 2, rel=0.1)
    again = task(data={"kind": "synthetic"}).make_client(silo(7))
    assert again._train.inputs.tobytes() == clients[7]._train.inputs.tobytes()
    model = dict(whole.initial_model())
    for number in range(15):
        work = [LocalWork(30, 1, stream(0, "work", number, index)) for index in range(40)]
        trained = [client.train(model, each).tensors for client, each in zip(clients, work, strict=False)]
        model = {name: np.mean([each[name] for each in trained], axis=0) for name in model}
    assert whole.evaluate(model)["score"] > 0.8


OWN = """
import numpy as np

class Blobs:
    features = 2
    classes = 3

    def __init__(self, distance=4.0, broken=""):
        self.distance = distance
        self.broken = broken
        if broken == "classes":
            self.classes = 1
        if broken == "features":
            self.features = 2.0

    def load(self, silo):
        return self.draw(silo.index, 60)

    def test(self):
        return None if self.broken == "none" else self.draw(1000, 300)

    def draw(self, seed, size):
        generator = np.random.default_rng(seed)
        labels = generator.integers(3, size=size)
        centres = self.distance * np.array([[0, 0], [0, 1], [1, 0]])
        features = (centres[labels] + generator.normal(size=(size, 2))).astype(np.float32)
        match self.broken:
            case "shape": features = features[:, :1]
            case "dtype": features = features.astype(np.float64)
            case "labels dtype": labels = labels.astype(np.int32)
            case "rows": labels = labels[:-1]
            case "nan": features[7, 1] = np.nan
            case "above": labels[3] = 3
            case "below": labels[3] = -1
            case "empty": features, labels = features[:0], labels[:0]
            case "pair": return features
            case "raises": raise OSError("disk gone")
        return features, labels

class NoTest:
    features, classes = 2, 3
    def load(self, silo): ...
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_data_{next(COUNT)}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_own_data_are_learnt_from(own: str) -> None:
    whole = task(data={"kind": "custom", "class": f"{own}:Blobs", "kwargs": {"distance": 6.0}}, learning_rate=0.1)
    model = whole.initial_model()
    assert model["layers.0.weight"].shape == (2, 32)
    assert model["layers.1.weight"].shape == (32, 3)
    client = whole.make_client(silo(2))
    assert client.samples == 60
    trained = client.train(model, LocalWork(200, 1, stream(0, "work"))).tensors
    assert whole.evaluate(trained)["score"] > 0.95
    silent = task(data={"kind": "custom", "class": f"{own}:Blobs", "kwargs": {"broken": "none"}})
    assert silent.evaluate(model) == {}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("shape", r"gave features as float32\[60, 1\], expected float32\[60, 2\]"),
        ("dtype", r"gave features as float64\[60, 2\], expected float32\[60, 2\]"),
        ("labels dtype", r"gave labels as int32\[60\], expected int64\[60\]"),
        ("rows", r"gave features as float32\[60, 2\], expected float32\[59, 2\]"),
        ("nan", "gave features that are not finite, first in row 7"),
        ("above", "gave label 3, expected 0 to 2"),
        ("below", "gave label -1, expected 0 to 2"),
        ("empty", "gave no samples: a silo without data cannot take part"),
        ("pair", r"gave a ndarray, expected \(features, labels\)"),
        ("raises", r"raised OSError: disk gone \(.*own_data_\d+.py:\d+\)"),
        ("classes", "classes is 1, expected a whole number of at least 2"),
        ("features", "features is 2.0, expected a whole number of at least 1"),
    ],
)
def test_own_data_that_break_the_contract_are_named(own: str, broken: str, message: str) -> None:
    wrong = task(data={"kind": "custom", "class": f"{own}:Blobs", "kwargs": {"broken": broken}})
    with pytest.raises(PluginError, match=f"^data.class {own}:Blobs: (load for client-0 )?{message}"):
        wrong.make_client(silo())


def test_own_data_without_a_method_are_named(own: str) -> None:
    with pytest.raises(PluginError, match="it lacks the method test: expected load, test"):
        task(data={"kind": "custom", "class": f"{own}:NoTest"}).initial_model()
