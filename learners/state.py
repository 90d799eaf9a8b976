"""State trees: what a ``state_dict`` may hold, and how it is stored without pickle.

A state tree is JSON values (None, bool, int, float, str), numpy arrays and torch tensors, nested in lists, tuples and
dicts with string keys. `split_state` takes it apart into a JSON tree, which holds the names of arrays in their places,
and the named arrays; `join_state` puts it together again, exactly: types, dtypes, shapes, bits. What changes is this:
a mapping of another class comes back as a dict, and a tensor comes back on the CPU, detached and contiguous, sharing
memory with no other.

Storage is JSON text beside a safetensors file (https://github.com/huggingface/safetensors). Arrays are named by their
JSON pointer (RFC 6901), such as ``/module/torso.0.weight``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import safetensors
import safetensors.torch
import torch

Array: TypeAlias = np.ndarray | torch.Tensor

StateTree: TypeAlias = (
    bool | int | float | str | Array | list["StateTree"] | tuple["StateTree", ...] | Mapping[str, "StateTree"] | None
)

_NUMPY_DTYPES = frozenset(
    np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
)
_TORCH_DTYPES = frozenset(getattr(torch, dtype.name) for dtype in _NUMPY_DTYPES) | {torch.bfloat16}

_MARK = "$"
"""Begins the only key of a dict in a JSON tree that stands for something which JSON lacks. A key of the state that
begins so is written with one mark more."""


def split_state(tree: StateTree) -> tuple[Any, dict[str, Array]]:
    """Take a state tree apart.

    Returns:
        The JSON tree (strict JSON: no NaN) and the arrays by name. Numpy arrays are those of the state, not copies;
        tensors are detached, on the CPU.

    Raises:
        ValueError: something in the tree is of another type or dtype; the message gives its path.
    """
    arrays: dict[str, Array] = {}
    return _split(tree, "", arrays), arrays


def join_state(json_tree: Any, arrays: Mapping[str, Array]) -> Any:
    """Put a state tree together again: the inverse of `split_state`.

    Args:
        json_tree: the JSON tree of `split_state`.
        arrays: the arrays by name; a numpy array may come as a tensor of the same dtype, as from safetensors.

    Raises:
        ValueError: the JSON tree is none of `split_state`, or its arrays are not those given.
    """
    used: set[str] = set()
    tree = _join(json_tree, "", arrays, used)
    if left := sorted(arrays.keys() - used):
        raise ValueError(f"state has no place for the array {left[0]!r} ({len(left)} such)")
    return tree


def encode_state(tree: StateTree) -> tuple[bytes, bytes]:
    """A state tree as bytes: JSON text in UTF-8, and a safetensors file. Equal trees give equal bytes.

    Raises:
        ValueError: as `split_state`.
    """
    json_tree, arrays = split_state(tree)
    storages: set[int] = set()
    tensors = {name: _own_storage(_as_tensor(array), storages) for name, array in arrays.items()}
    return json.dumps(json_tree, allow_nan=False).encode(), safetensors.torch.save(tensors)


def decode_state(tree: bytes, tensors: bytes) -> Any:
    """The state tree of `encode_state`'s bytes.

    Raises:
        ValueError: the bytes are not of that form, or do not belong together.
    """
    try:
        return join_state(json.loads(tree), safetensors.torch.load(tensors))
    except safetensors.SafetensorError as error:
        raise ValueError(f"not a safetensors file: {error}") from error


def _split(node: StateTree, path: str, arrays: dict[str, Array]) -> Any:
    kind = type(node)
    if node is None or kind in (bool, int, str):
        return node
    if isinstance(node, float) and kind is float:
        return node if math.isfinite(node) else {"$float": repr(node)}
    if isinstance(node, torch.Tensor):
        arrays[path] = _checked_tensor(node, path)
        return {"$torch": path}
    if isinstance(node, np.ndarray) and kind is np.ndarray:
        if node.dtype not in _NUMPY_DTYPES:
            raise ValueError(f"state at {path!r} is a numpy array of dtype {node.dtype.str}: it cannot be stored")
        arrays[path] = node
        return {"$numpy": path}
    if isinstance(node, list | tuple) and kind in (list, tuple):
        items = [_split(item, f"{path}/{index}", arrays) for index, item in enumerate(node)]
        return items if kind is list else {"$tuple": items}
    if isinstance(node, Mapping):
        return {_checked_key(key, path): _split(value, f"{path}/{_escape(key)}", arrays) for key, value in node.items()}
    raise ValueError(
        f"state at {path!r} is a {kind.__module__}.{kind.__qualname__}: it must be None, bool, int, float, str, list, "
        "tuple, dict, numpy array or torch tensor"
    )


def _checked_key(key: object, path: str) -> str:
    if type(key) is not str:
        raise ValueError(f"state at {path!r} has the key {key!r}: keys must be str")
    return _MARK + key if key.startswith(_MARK) else key


def _escape(key: object) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def _checked_tensor(tensor: torch.Tensor, path: str) -> torch.Tensor:
    if tensor.dtype not in _TORCH_DTYPES or tensor.layout != torch.strided or tensor.is_meta:
        kind = f"{tensor.device.type} tensor of {tensor.dtype}, {tensor.layout}"
        raise ValueError(f"state at {path!r} is a {kind}: it cannot be stored")
    return tensor.detach().resolve_neg().cpu()


def _as_tensor(array: Array) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return array.contiguous()
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _own_storage(tensor: torch.Tensor, storages: set[int]) -> torch.Tensor:
    """The tensor, or a copy where its storage is taken: safetensors refuses tied weights and views."""
    storage = tensor.untyped_storage().data_ptr()
    if storage in storages:
        return tensor.clone()
    storages.add(storage)
    return tensor


def _join(node: Any, path: str, arrays: Mapping[str, Array], used: set[str]) -> Any:
    if isinstance(node, list):
        return [_join(item, f"{path}/{index}", arrays, used) for index, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    mark = next(iter(node), "")
    if len(node) == 1 and mark in _LEAVES:
        return _LEAVES[mark](node[mark], path, arrays, used)
    plain = {_unmarked(key, path): value for key, value in node.items()}
    return {key: _join(value, f"{path}/{_escape(key)}", arrays, used) for key, value in plain.items()}


def _unmarked(key: str, path: str) -> str:
    if not key.startswith(_MARK):
        return key
    if not key.startswith(_MARK * 2):
        raise ValueError(f"state at {path!r} has the mark {key!r}, which is not known")
    return key[1:]


def _join_float(text: Any, path: str, _arrays: Mapping[str, Array], _used: set[str]) -> float:
    if text not in ("nan", "inf", "-inf"):
        raise ValueError(f"state at {path!r} is {text!r}: expected nan, inf or -inf")
    return float(text)


def _join_tuple(items: Any, path: str, arrays: Mapping[str, Array], used: set[str]) -> tuple[Any, ...]:
    if not isinstance(items, list):
        raise ValueError(f"state at {path!r} is {items!r}: expected a tuple's items")
    return tuple(_join(items, path, arrays, used))


def _join_torch(name: Any, path: str, arrays: Mapping[str, Array], used: set[str]) -> Array:
    if name != path or name not in arrays:
        raise ValueError(f"state at {path!r} names the array {name!r}, which is not there")
    used.add(name)
    return arrays[name]


def _join_numpy(name: Any, path: str, arrays: Mapping[str, Array], used: set[str]) -> np.ndarray:
    array = _join_torch(name, path, arrays, used)
    return array.numpy() if isinstance(array, torch.Tensor) else array


_LEAVES: dict[str, Callable[[Any, str, Mapping[str, Array], set[str]], Any]] = {
    "$float": _join_float,
    "$tuple": _join_tuple,
    "$torch": _join_torch,
    "$numpy": _join_numpy,
}
