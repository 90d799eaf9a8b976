"""State trees come back exactly, through memory and through bytes."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.learners.state import decode_state, encode_state, join_state, split_state

NUMPY_DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
NUMPY_DTYPES += ["float16", "float32", "float64"]
TORCH_DTYPES = [*NUMPY_DTYPES, "bfloat16"]


def assert_same(found: Any, expected: Any) -> None:
    """The same types, dtypes, shapes and bits, all the way down."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
    elif isinstance(expected, torch.Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        if expected.numel():
            bits = [tensor.reshape(-1).view(torch.uint8) for tensor in (found, expected)]
            assert torch.equal(*bits)
    elif isinstance(expected, float) and math.isnan(expected):
        assert math.isnan(found)
    else:
        assert repr(found) == repr(expected)


def round_trip(tree: Any) -> Any:
    return decode_state(*encode_state(tree))


def random_array(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Any bits, infinities, NaN payloads and subnormals among them."""
    generator = np.random.default_rng(0)
    if dtype == "bool":
        return generator.integers(0, 2, size=shape).astype(bool)
    raw = generator.bytes(math.prod(shape) * np.dtype(dtype).itemsize)
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5, 7)])
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_each_numpy_dtype_and_shape_comes_back_bit_by_bit(dtype: str, shape: tuple[int, ...]) -> None:
    array = random_array(dtype, shape)
    found = round_trip({"a": array})["a"]
    assert_same(found, array)
    if array.size:
        found[...] = 0  # What comes back is the caller's to change, though the array was read-only.


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5, 7)])
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_each_torch_dtype_and_shape_comes_back_bit_by_bit(dtype: str, shape: tuple[int, ...]) -> None:
    if dtype == "bfloat16":
        tensor = torch.from_numpy(random_array("int16", shape).copy()).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(random_array(dtype, shape).copy())
    found = round_trip([tensor])[0]
    assert_same(found, tensor)
    found.zero_()


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, 1, -(2**63), 2**64, 10**1000, 0.1, -0.0, 5e-324, math.nan, math.inf, -math.inf),
        *("", "é\n\x00", "\ud800", "nan", [], {}, (), [[], {}], (1, (2.5, [None])), {"": {"": 1}}),
    ],
)
def test_each_plain_value_comes_back(value: Any) -> None:
    for tree in (value, {"value": value}, [value], (value,)):
        assert_same(round_trip(tree), tree)


def test_keys_of_any_text_stay_apart() -> None:
    keys = ["a.b", "a", "a/b", "a~1b", "~", "/", "", "0", "__metadata__", "$torch", "$$torch", "$float", "$", "é"]
    tree = {key: torch.tensor(index) for index, key in enumerate(keys)}
    tree["a"] = {"b": torch.tensor(-1), "$numpy": "x", "$tuple": [1]}  # type: ignore[assignment]
    assert_same(round_trip(tree), tree)
    assert_same(round_trip({"$float": "nan"}), {"$float": "nan"})


def test_the_root_may_be_an_array() -> None:
    assert_same(round_trip(np.arange(3)), np.arange(3))
    assert_same(round_trip(torch.arange(3)), torch.arange(3))


def test_numpy_and_torch_are_kept_apart() -> None:
    found = round_trip({"n": np.ones(2, np.float32), "t": torch.ones(2)})
    assert isinstance(found["n"], np.ndarray)
    assert isinstance(found["t"], torch.Tensor)


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.builds(
        lambda dtype, shape: random_array(dtype, tuple(shape)),
        st.sampled_from(NUMPY_DTYPES),
        st.lists(st.integers(0, 3), max_size=3),
    ),
    st.builds(
        lambda dtype, shape: torch.ones(shape).to(getattr(torch, dtype)),
        st.sampled_from(TORCH_DTYPES),
        st.lists(st.integers(0, 3), max_size=3),
    ),
)
keys = st.one_of(st.text(max_size=4), st.sampled_from(["$torch", "$numpy", "$float", "$tuple", "__metadata__", "a/b"]))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(trees)
def test_any_tree_comes_back(tree: Any) -> None:
    assert_same(join_state(*split_state(tree)), tree)
    stored = encode_state(tree)
    assert_same(decode_state(*stored), tree)
    assert encode_state(tree) == stored
    json.loads(stored[0], parse_constant=pytest.fail)


def test_tied_weights_views_strides_and_gradients() -> None:
    weight = torch.nn.Parameter(torch.arange(12.0).reshape(3, 4))
    buffer = np.arange(12).reshape(3, 4)
    tree = {"a": weight, "b": weight, "t": weight.T, "row": weight[1:], "n": buffer[:, ::2], "m": buffer.T}
    found = round_trip(tree)
    for name in ("a", "b", "t", "row"):
        assert torch.equal(found[name], tree[name])  # type: ignore[arg-type]
        assert type(found[name]) is torch.Tensor
        assert not found[name].requires_grad
    for name in ("n", "m"):
        np.testing.assert_array_equal(found[name], tree[name])
    found["a"].zero_()
    assert torch.equal(found["b"], weight)


def test_a_lazily_negated_tensor_keeps_its_sign() -> None:
    negated = torch.complex(torch.ones(1), torch.ones(1)).conj().imag
    assert negated.is_neg()
    assert round_trip(negated).tolist() == [-1.0]


def test_a_module_and_its_optimiser_come_back() -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    state = optimiser.state_dict()
    by_name = {str(key): value for key, value in state["state"].items()}
    found = round_trip({"module": module.state_dict(), "state": by_name, "groups": state["param_groups"]})
    assert_same(found["module"], dict(module.state_dict()))
    assert_same(found["state"], by_name)
    assert_same(found["groups"], state["param_groups"])


class Whole(int):
    pass


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({1: 2}, "key 1"),
        (np.float32(1), "numpy.float32"),
        (np.float64(1), "numpy.float64"),
        (np.bool_(True), "numpy.bool"),
        (Whole(1), "Whole"),
        (b"x", "builtins.bytes"),
        ({1, 2}, "builtins.set"),
        (torch.float32, "torch.dtype"),
        (np.array(["x"]), "<U1"),
        (np.array([None]), "|O"),
        (np.zeros(1, ">i4"), ">i4"),
        (np.zeros(1, "complex64"), "<c8"),
        (np.ma.masked_array([1.0], [True]), "MaskedArray"),
        (torch.zeros(1, dtype=torch.complex64), "complex64"),
        (torch.eye(2).to_sparse(), "sparse_coo"),
        (torch.zeros(1, device="meta"), "meta"),
    ],
)
def test_what_cannot_be_stored_is_named_with_its_path(value: Any, named: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be stored|must be") as caught:
        encode_state({"opt/imiser": [0, OrderedDict(x=value)]})
    assert named in str(caught.value)
    assert "'/opt~1imiser/1/x'" in str(caught.value)


def test_arrays_and_tree_must_belong_together() -> None:
    tree, arrays = split_state({"a": torch.zeros(1), "b": np.zeros(1)})
    with pytest.raises(ValueError, match="'/b'"):
        join_state(tree, {"/a": arrays["/a"]})
    with pytest.raises(ValueError, match="'/c'"):
        join_state(tree, {**arrays, "/c": torch.zeros(1)})
    with pytest.raises(ValueError, match="'/a'"):
        join_state({"a": {"$torch": "/b"}}, {"/b": torch.zeros(1)})


@pytest.mark.parametrize("tree", [{"$new": 1}, {"$float": "1"}, {"$float": []}, {"$tuple": 1}, {"$torch": ["x"]}])
def test_marks_that_are_not_known_are_refused(tree: Any) -> None:
    with pytest.raises(ValueError, match="state at '/a'"):
        join_state({"a": tree}, {})


@pytest.mark.parametrize("stored", [(b"{", b""), (b"null", b"x"), (b"null", b""), (b"\xff", b"")])
def test_bytes_of_another_kind_are_refused(stored: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match=r"safetensors|Expecting|codec"):
        decode_state(*stored)
