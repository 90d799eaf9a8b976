"""A rollout as numpy columns, time-major. T is the number of steps, N of environments in the vector.

``observation/<field>``  ``[T + 1, N, ...]``: row T is where the next rollout begins
``action``      ``[T, N] int64``
``reward``      ``[T, N] float32``
``terminated``  ``[T, N] bool``
``truncated``   ``[T, N] bool``
``valid``       ``[T, N] bool``: False on auto-reset rows, whose action and reward mean nothing
``episode``     ``[T, N] int64``: counts episodes within a worker; it changes after an auto-reset row, which still
                belongs to the episode that ended
``version``     ``[T, N] int64``: of the weights that acted
``legal``       ``[T + 1, N, A] bool``: only of environments that have it, and only when asked for
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from ..learners.encodings.spec import EnvironmentSpec

Columns: TypeAlias = dict[str, np.ndarray]


def check_columns(columns: Columns, spec: EnvironmentSpec) -> None:
    """Check a rollout whole, before anything is told of it.

    Raises:
        ValueError: a column is missing or unknown, has another shape or dtype than the rest and the spec say, an
            action is out of range, or a number is not finite. The message names the column and the value.
    """
    dtypes = {"action": "int64", "reward": "float32", "terminated": "bool", "truncated": "bool", "valid": "bool"}
    dtypes |= {"episode": "int64", "version": "int64"}
    wanted = {*dtypes, *(f"observation/{name}" for name in spec.observation)}
    if missing := sorted(wanted - columns.keys()):
        raise ValueError(f"rollout of {spec.name} lacks the columns {', '.join(missing)}")
    if unknown := sorted(columns.keys() - wanted - ({"legal"} if spec.has_legal else set())):
        raise ValueError(f"rollout of {spec.name} has unknown columns {', '.join(unknown)}")
    if columns["action"].ndim != 2:
        raise ValueError(f"column action has shape {columns['action'].shape}, expected [T, N]")
    steps, envs = columns["action"].shape
    for name, dtype in dtypes.items():
        _check_array(name, columns[name], (steps, envs), dtype)
    for name, array in spec.observation.items():
        _check_array(
            f"observation/{name}", columns[f"observation/{name}"], (steps + 1, envs, *array.shape), array.dtype
        )
    if "legal" in columns:
        _check_array("legal", columns["legal"], (steps + 1, envs, spec.num_actions), "bool")
    acted = columns["action"][columns["valid"]]
    if acted.size and (acted.min() < 0 or acted.max() >= spec.num_actions):
        raise ValueError(f"column action spans {acted.min()}..{acted.max()}, expected 0..{spec.num_actions - 1}")


def _check_array(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: str) -> None:
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise ValueError(f"column {name} is {array.dtype}{list(array.shape)}, expected {dtype}{list(shape)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"column {name} holds {array[~np.isfinite(array)][0]}: every number must be finite")
