"""Random streams: each is named by (seed, role, index...), independent of all others, and can be put in a checkpoint.

A stream is a `numpy.random.Generator` over Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
a counter-based generator: its state is a key, fixed by the name, and a counter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def stream(seed: int, role: str, *index: int) -> np.random.Generator:
    """The stream of this name, at its beginning.

    Args:
        seed: the run's seed, >= 0.
        role: what the stream is for, such as ``"replay"``.
        index: which one of that role: worker number, sequence number, ...

    Raises:
        ValueError: the seed or an index is negative, or the role holds a "/", which separates the parts of a name.
    """
    if "/" in role:
        raise ValueError(f"role is {role!r}: a role holds no /")
    if seed < 0 or any(i < 0 for i in index):
        raise ValueError(f"stream({seed}, {role!r}, {index}): the seed and every index must be at least 0")
    name = "/".join([str(seed), role, *map(str, index)])
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def stream_state(generator: np.random.Generator) -> dict[str, Any]:
    """Where a stream stands, as JSON values.

    Raises:
        ValueError: the generator is not over Philox.
    """
    state = generator.bit_generator.state
    if state["bit_generator"] != "Philox":
        raise ValueError(f"stream is over {state['bit_generator']}: only Philox streams are kept in checkpoints")
    return {
        "counter": [int(word) for word in state["state"]["counter"]],
        "key": [int(word) for word in state["state"]["key"]],
        "buffer": [int(word) for word in state["buffer"]],
        "buffer_position": int(state["buffer_pos"]),
        "has_uint32": int(state["has_uint32"]),
        "uinteger": int(state["uinteger"]),
    }


def restore_stream(state: Mapping[str, Any]) -> np.random.Generator:
    """A stream that goes on where `stream_state` found it."""
    philox = np.random.Philox(0)
    philox.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.array(state["counter"], dtype=np.uint64),
            "key": np.array(state["key"], dtype=np.uint64),
        },
        "buffer": np.array(state["buffer"], dtype=np.uint64),
        "buffer_pos": state["buffer_position"],
        "has_uint32": state["has_uint32"],
        "uinteger": state["uinteger"],
    }
    return np.random.Generator(philox)


def torch_generator(generator: np.random.Generator) -> torch.Generator:
    """A CPU `torch.Generator` seeded from a stream, for one-off draws such as a network's first weights."""
    return torch.Generator().manual_seed(int(generator.integers(2**63 - 1)))
