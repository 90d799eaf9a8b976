"""The dense codec: bits come back, and nothing else than an update's frames is taken for one."""

from __future__ import annotations

import io
import json
import random
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isogon.learners.compression import CodecError, Layout, decode, encode, layout_of, read_frames
from isogon.learners.compression.codec import FRAME_BYTES

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES += ["float16", "float32", "float64"]
MODEL = {
    "body.weight": np.arange(300_000, dtype=np.float32).reshape(3, -1),
    "flag": np.array([True, False]),
    "steps": np.array(7),
    "ünï": np.zeros((0, 2), np.float16),
}
LAYOUT = layout_of(MODEL)
FRAMES = list(encode(MODEL))


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype.newbyteorder("="), array.shape)
        assert found[name].tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()
        assert found[name].flags.writeable
        assert found[name].flags.c_contiguous


def frames_of(*payloads: bytes) -> list[bytes]:
    """Frames with the right checksums, written from the format's description."""
    frames, crc = [], 0
    for index, payload in enumerate(payloads):
        crc = zlib.crc32(struct.pack("<II", index, len(payload)) + payload, crc)
        frames.append(struct.pack("<III", index, len(payload), crc) + payload)
    return frames


def header_of(tensors: Any, nbytes: Any, **changes: Any) -> bytes:
    header = {"plan": "dense", "nbytes": nbytes, "tensors": tensors, **changes}
    return b"ISOGON" + struct.pack("<H", 1) + json.dumps(header).encode()


named = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=5)),
    max_size=5,
)


@given(named)
def test_any_tensors_come_back_bit_by_bit(tensors: dict[str, np.ndarray]) -> None:
    assert_same(decode(encode(tensors), layout_of(tensors)), tensors)


@pytest.mark.parametrize("extra", [-13, -12, -1, 0, 1, FRAME_BYTES - 12, FRAME_BYTES - 11])
def test_tensors_of_about_a_frame_come_back(extra: int) -> None:
    rng = np.random.default_rng(0)
    sizes = {"a": 5, "b": FRAME_BYTES - 12 - 5 + extra, "c": 3}
    tensors = {name: rng.integers(256, size=size, dtype=np.uint8) for name, size in sizes.items()}
    frames = list(encode(tensors))
    assert max(map(len, frames)) <= FRAME_BYTES
    assert_same(decode(frames, layout_of(tensors)), tensors)


def test_memory_layout_and_byte_order_do_not_cross_the_link() -> None:
    plain = {"a": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "b": np.array(3.5)}
    odd = {"a": np.asfortranarray(plain["a"]).astype(">f4"), "b": plain["b"].astype(">f8")}
    strided = {"a": np.stack([plain["a"], plain["a"]], axis=-1)[..., 0], "b": plain["b"]}
    assert list(encode(odd)) == list(encode(strided)) == list(encode(dict(reversed(plain.items()))))
    assert_same(decode(encode(odd), layout_of(odd)), plain)


def test_the_format_is_as_described() -> None:
    tensors = {"w": np.array([1.0, -2.0], np.float32), "b": np.array([True])}
    frames = frames_of(
        header_of([["b", "bool", [1]], ["w", "float32", [2]]], 9), b"\x01" + struct.pack("<ff", 1.0, -2.0)
    )
    assert_same(decode(frames, layout_of(tensors)), tensors)
    own = list(encode(tensors))
    assert own[1][12:] == frames[1][12:]
    assert own[0][12:20] == frames[0][12:20]
    assert json.loads(own[0][20:]) == json.loads(frames[0][20:])
    assert frames_of(*(frame[12:] for frame in own)) == own


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_flipped_bit_is_an_error(data: st.DataObject) -> None:
    frames = [bytearray(frame) for frame in FRAMES]
    frame = data.draw(st.sampled_from(frames))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CodecError):
        decode(map(bytes, frames), LAYOUT)


def test_each_flipped_bit_of_a_small_update_is_an_error() -> None:
    tensors = {"w": np.ones(1, np.float32)}
    stream = b"".join(encode(tensors))
    for place in range(8 * len(stream)):
        flipped = bytearray(stream)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(CodecError):
            decode(read_frames(io.BytesIO(flipped)), layout_of(tensors))


@settings(deadline=None)
@given(st.integers(0, sum(map(len, FRAMES)) - 1))
def test_any_truncation_is_an_error(length: int) -> None:
    stream = b"".join(FRAMES)[:length]
    with pytest.raises(CodecError):
        decode(read_frames(io.BytesIO(stream)), LAYOUT)
    with pytest.raises(CodecError):
        decode((stream[start : start + FRAME_BYTES] for start in range(0, length, FRAME_BYTES)), LAYOUT)


def test_any_other_order_and_number_of_frames_is_an_error() -> None:
    assert len(FRAMES) == 3
    generator = random.Random(0)
    for _ in range(200):
        frames = generator.choices(FRAMES, k=generator.randint(0, 5))
        if frames != FRAMES:
            with pytest.raises(CodecError):
                decode(frames, LAYOUT)


def test_a_frame_of_another_update_is_an_error() -> None:
    others = list(encode({**MODEL, "body.weight": MODEL["body.weight"] + 1}))
    for index in (1, 2):
        mixed = [*FRAMES[:index], others[index], *FRAMES[index + 1 :]]
        with pytest.raises(CodecError, match="of another update"):
            decode(mixed, LAYOUT)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([FRAMES[0], FRAMES[1], FRAMES[1]], "frame 1 came where 2 belongs"),
        ([FRAMES[0], FRAMES[2]], "frame 2 came where 1 belongs"),
        (FRAMES[:2], "frame 2 is missing"),
        ([FRAMES[0], FRAMES[1][:-1], FRAMES[2]], "frame 1 has 1048563 bytes and says 1048564"),
        ([FRAMES[0], FRAMES[1][:5]], "frame 1 has 5 bytes: not even its own header"),
        ([FRAMES[0] + FRAMES[1], FRAMES[2]], "it was cut or joined"),
    ],
)
def test_what_is_wrong_with_frames_is_said(frames: list[bytes], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        decode(frames, LAYOUT)


def test_a_file_that_ends_within_a_frame_says_so() -> None:
    stream = b"".join(FRAMES)
    for length in (5, len(FRAMES[0]) + 12, len(stream) - 1):
        with pytest.raises(CodecError, match="the file ends within a frame"):
            list(read_frames(io.BytesIO(stream[:length])))


def test_no_more_frames_are_asked_for_than_one_too_many() -> None:
    def endless() -> Iterator[bytes]:
        yield from FRAMES
        yield FRAMES[-1]
        raise AssertionError("asked for more")

    with pytest.raises(CodecError, match="a frame came after the last: 3 belong"):
        decode(endless(), LAYOUT)


SMALL = {"w": np.zeros(2, np.float32), "b": np.zeros(1, bool)}
ENTRIES: list[Any] = [["b", "bool", [1]], ["w", "float32", [2]]]
HOSTILE = {
    "no magic": (b"pickle!!" + b"x" * 50, "no update begins so"),
    "version": (b"ISOGON\x02\x00{}", "format version 2"),
    "short": (b"ISO", "no update begins so"),
    "empty": (b"", "no update begins so"),
    "no JSON": (b"ISOGON\x01\x00{{{", "header is not that of a dense update: JSON"),
    "not UTF-8": (b"ISOGON\x01\x00\xff\xfe", "header is not that"),
    "deep JSON": (b"ISOGON\x01\x00" + b"[" * 4000, "header is not that"),
    "deep shape": (header_of([["b", "bool", [1]], ["w", "float32", [[[2]]]]], 9), "header is not that"),
    "plan": (header_of(ENTRIES, 9, plan="sparse"), "plan: "),
    "more keys": (header_of(ENTRIES, 9, code="x"), "code: "),
    "huge shape": (header_of([ENTRIES[0], ["w", "float32", [2**40]]], 9), "'w' is float32"),
    "overflowing shape": (header_of([ENTRIES[0], ["w", "float32", [2**32, 2**32, 2]]], 9), "'w' is float32"),
    "endless number": (header_of([ENTRIES[0], ["w", "float32", [10**4000]]], 9), "'w' is float32"),
    "negative shape": (header_of([ENTRIES[0], ["w", "float32", [-2]]], 9), "'w' is float32"),
    "negative twice": (header_of([ENTRIES[0], ["w", "float32", [-1, -2]]], 9), "'w' is float32"),
    "fraction": (header_of([ENTRIES[0], ["w", "float32", [2.0]]], 9), "tensors.1.2.0: "),
    "object": (header_of([ENTRIES[0], ["w", "object", [2]]], 9), "'w' has the dtype 'object'"),
    "alias": (header_of([ENTRIES[0], ["w", "f4", [2]]], 9), "'w' has the dtype 'f4'"),
    "other dtype": (header_of([ENTRIES[0], ["w", "int32", [2]]], 9), r"'w' is int32 \[2\]: expected float32 \[2\]"),
    "other name": (header_of([ENTRIES[0], ["v", "float32", [2]]], 9), "'v' is not expected"),
    "missing": (header_of([ENTRIES[0]], 1), "'w' is not there"),
    "surplus": (header_of([*ENTRIES, ["x", "bool", [1]]], 10), "'x' is not expected"),
    "twice": (header_of([ENTRIES[0], ENTRIES[1], ENTRIES[1]], 17), "'w' twice"),
    "order": (header_of(ENTRIES[::-1], 9), "order of their names"),
    "bytes": (header_of(ENTRIES, 2**60), f"says {2**60} bytes: its tensors have 9"),
    "enormous": (header_of([[str(index), "bool", [1]] for index in range(30_000)], 30_000), "header has .* bytes"),
    "many lists": (header_of([[]] * 200_000, 0), "header has .* bytes"),
    "no bool": (header_of(ENTRIES, 9), "'b' holds bytes that are no bools"),
    "too large for a frame": (b"x" * FRAME_BYTES, "frame 0 has 1048576 bytes"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_updates_are_refused_cheaply(case: str) -> None:
    payload, message = HOSTILE[case]
    frames = frames_of(payload, b"\x02" + bytes(8))
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match=message):
            decode(frames, layout_of(SMALL))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@settings(deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=40))
def test_no_other_exception_comes_of_any_bytes(first: bytes, second: bytes) -> None:
    opening = b"ISOGON\x01\x00"
    for frames in ([first], [first, second], frames_of(first, second), frames_of(opening + first, second)):
        with pytest.raises(CodecError):
            decode(frames, layout_of(SMALL))


def test_little_is_allocated_before_frames_are_there() -> None:
    layout: Layout = {f"layer{index}": ((4, 2**20), np.dtype(np.float32)) for index in range(8)}
    tensors = {name: np.zeros(shape, dtype) for name, (shape, dtype) in layout.items()}
    frames = encode(tensors)
    cut = [next(frames) for _ in range(3)]
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="frame 3 is missing"):
            decode(cut, layout)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_encoding_holds_one_frame_beside_the_tensors() -> None:
    tensors = {"w": np.zeros((8, 2**20), np.float32)}
    tracemalloc.start()
    try:
        assert sum(map(len, encode(tensors))) > 32 * 2**20
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w": np.array([object()])}, "'w' has the dtype object"),
        ({"w": np.array([1j])}, "'w' has the dtype complex128"),
        ({"w": np.array(["x"])}, "'w' has the dtype <U1"),
        ({"\ud800": np.zeros(1)}, "cannot be written as UTF-8"),
        ({f"{index:0100}": np.zeros(0) for index in range(10_000)}, "header of 10000 tensors has"),
    ],
)
def test_what_cannot_be_encoded_is_refused_at_the_call(tensors: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        encode(tensors)


def test_a_frame_too_long_is_not_read() -> None:
    with pytest.raises(CodecError, match="says that it has 4294967295 bytes"):
        list(read_frames(io.BytesIO(struct.pack("<III", 0, 2**32 - 1, 0) + bytes(100))))
