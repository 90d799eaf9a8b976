"""What every `Source` of batches is put through.

A test module subclasses `SourceSuite` and says how its source is made and how it comes by samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from isogon.learners.batch import Batch, Source
from isogon.learners.state import decode_state, encode_state


class SourceSuite(ABC):
    @abstractmethod
    def make(self, seed: int) -> Source:
        """A source with nothing in it, whose samples are drawn by a stream of this seed."""

    @abstractmethod
    def fill(self, source: Source, part: int) -> None:
        """Give the source its next samples; parts 0, 1, 2 go beyond what it can hold."""

    def filled(self, seed: int, parts: int = 1) -> Source:
        source = self.make(seed)
        for part in range(parts):
            self.fill(source, part)
        return source

    def test_nothing_to_sample_from_is_an_error(self) -> None:
        source = self.make(0)
        source.check_valid()
        with pytest.raises(ValueError, match="empty"):
            source.next_batch()

    @pytest.mark.parametrize("parts", [1, 2, 3])
    def test_batches_keep_the_contract(self, parts: int) -> None:
        source = self.filled(1, parts)
        for _ in range(5):
            check_batch(source.next_batch())

    def test_state_is_valid_after_every_change(self) -> None:
        source = self.make(2)
        for part in range(3):
            self.fill(source, part)
            source.check_valid()
            batch = source.next_batch()
            source.check_valid()
            source.update_priorities(batch["index"], torch.ones(len(batch["index"])))
            source.check_valid()
        other = self.make(3)
        other.load_state_dict(source.state_dict())
        other.check_valid()

    def test_equal_streams_give_equal_batches_and_others_do_not(self) -> None:
        same, again, other = self.filled(4), self.filled(4), self.filled(5)
        first = same.next_batch()
        assert_equal_batches(first, again.next_batch())
        assert not torch.equal(first["index"], other.next_batch()["index"])
        assert not torch.equal(first["index"], same.next_batch()["index"])

    @pytest.mark.parametrize("parts", [0, 1, 2, 3])
    def test_a_stored_state_goes_on_bitwise(self, parts: int) -> None:
        source = self.filled(6, parts)
        if parts:
            source.next_batch()
        stored = encode_state(source.state_dict())
        restored = self.filled(7, 1)
        restored.load_state_dict(decode_state(*stored))
        restored.check_valid()
        for part in range(parts, 4):
            for each in (source, restored):
                self.fill(each, part)
            for _ in range(3):
                assert_equal_batches(source.next_batch(), restored.next_batch())
        assert encode_state(source.state_dict()) == encode_state(restored.state_dict())

    def test_a_state_taken_is_not_changed_by_what_follows(self) -> None:
        source = self.filled(8, 2)
        state = source.state_dict()
        before = encode_state(state)
        self.fill(source, 2)
        source.next_batch()
        assert encode_state(state) == before
        other = self.make(9)
        other.load_state_dict(state)
        self.fill(other, 2)
        other.next_batch()
        assert encode_state(state) == before


def check_batch(batch: Batch) -> None:
    """Assert that a batch is one of the two forms of `isogon.learners.batch`."""
    observation = batch["observation_tm1"]
    states = {len(part) for part in observation.values()}
    assert len(states) == 1, "all fields of an observation have the same B"
    b = states.pop()
    if "target" in batch:
        names = {"observation_tm1", "row", "action", "target"}
        pairs = _check_vectors(batch, {"row": torch.int64, "action": torch.int64, "target": torch.float32})
        assert 0 <= int(batch["row"].min()) <= int(batch["row"].max()) < b
    else:
        names = {"observation_tm1", "action_tm1", "reward_t", "discount_t"}
        dtypes = {"action_tm1": torch.int64, "reward_t": torch.float32, "discount_t": torch.float32}
        pairs = _check_vectors(batch, dtypes)
        assert pairs == b
        if batch["discount_t"].any():
            names |= {"observation_t"}
            assert {name: part.shape for name, part in batch["observation_t"].items()} == {
                name: part.shape for name, part in observation.items()
            }
        if "legal_t" in batch:
            names |= {"legal_t"}
            assert batch["legal_t"].dtype == torch.bool
            assert batch["legal_t"].dim() == 2
            assert len(batch["legal_t"]) == b
    assert names <= batch.keys()
    assert batch.keys() <= names | {"index", "weight", "observation_t"}
    optional = {"index": torch.int64, "weight": torch.float32}
    assert _check_vectors(batch, {name: dtype for name, dtype in optional.items() if name in batch}) == pairs


def assert_equal_batches(one: Batch, other: Batch) -> None:
    assert one.keys() == other.keys()
    for name, part in one.items():
        if isinstance(part, Mapping):
            assert_equal_batches(part, other[name])
        else:
            assert part.dtype == other[name].dtype
            torch.testing.assert_close(part, other[name], rtol=0, atol=0, equal_nan=True)


def transitions(count: int, seed: int, *, bootstrapped: bool, actions: int = 4) -> dict[str, Any]:
    """Made-up transitions of which no two have the same return, over a few repeated observations."""
    generator = np.random.default_rng(seed)
    arrays = {
        "observation_tm1/board": generator.integers(-1, 2, size=(count, 2), dtype=np.int8),
        "observation_tm1/clock": generator.integers(2, size=(count, 1)).astype(np.float32),
        "action_tm1": generator.integers(actions, size=count),
        "reward_t": (seed + np.arange(count) / count).astype(np.float32),
        "discount_t": np.zeros(count, np.float32),
    }
    if bootstrapped:
        arrays["discount_t"] = generator.choice(np.array([0.0, 0.9], np.float32), size=count)
        arrays["observation_t/board"] = generator.integers(-1, 2, size=(count, 2), dtype=np.int8)
        arrays["observation_t/clock"] = generator.integers(2, size=(count, 1)).astype(np.float32)
        arrays["legal_t"] = generator.random((count, actions)) < 0.5
    return arrays


def _check_vectors(batch: Batch, dtypes: Mapping[str, torch.dtype]) -> int:
    lengths = set()
    for name, dtype in dtypes.items():
        assert batch[name].dtype == dtype, name
        assert batch[name].dim() == 1, name
        lengths.add(len(batch[name]))
    assert len(lengths) == 1, f"{sorted(dtypes)} have the lengths {lengths}"
    return lengths.pop()
