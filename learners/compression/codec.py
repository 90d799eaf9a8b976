"""Named tensors as frames of bytes, for links and files: checksums, no pickle, nothing believed before it is checked.

A frame has at most 1 MiB, and every integer is little-endian::

    frame     index u32 | payload length u32 | CRC-32 u32 | payload
    payload   of frame 0: "ISOGON" | version u16 | header, JSON in UTF-8
              of the others: all tensors' numbers in the header's order, little-endian; each frame full but the last
    header    {"plan": "dense", "nbytes": ..., "tensors": [[name, dtype, shape], ...]}, tensors sorted by name

A frame's CRC goes on from that of the frame before, over its index, length and payload: a frame of another message does
not pass for one of this. Equal tensors give equal bytes. A CRC guards against accidents, not against forgers: what a
forger can make the receiver do is bounded by what it expects, for names, shapes and dtypes must be those before memory
is taken.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

FRAME_BYTES = 1 << 20
VERSION = 1

Layout: TypeAlias = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Shape and dtype of each tensor, by name."""

_MAGIC = b"ISOGON"
_FRAME = struct.Struct("<III")
_OPENING = struct.Struct(f"<{len(_MAGIC)}sH")
_CAPACITY = FRAME_BYTES - _FRAME.size
_DTYPES = frozenset(
    np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
)


class CodecError(ValueError):
    """Frames are not those of an update as it was sent, or not of the update that is expected."""


class _Header(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    plan: Literal["dense"]
    nbytes: int
    tensors: list[tuple[str, str, list[int]]]


def layout_of(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shapes and dtypes, whatever the byte order in memory."""
    return {name: (array.shape, array.dtype.newbyteorder("=")) for name, array in tensors.items()}


def check_layout(found: Layout, expected: Layout) -> None:
    """Raise CodecError, with the first tensor that differs, where two layouts are not the same."""
    if odd := sorted(found.keys() ^ expected.keys()):
        state = "is not there" if odd[0] in expected else "is not expected"
        raise CodecError(f"tensor {odd[0]!r} {state} ({len(odd)} names differ)")
    for name, (shape, dtype) in expected.items():
        if found[name] != (tuple(shape), dtype):
            other_shape, other_dtype = found[name]
            raise CodecError(
                f"tensor {name!r} is {other_dtype} {list(other_shape)}: expected {dtype} {list(map(int, shape))}"
            )


def encode(tensors: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    """Frames of a dense update, one at a time: beside the tensors no more than one is in memory.

    Args:
        tensors: numbers and bools, of any layout in memory; one that is not contiguous is copied when its turn comes.

    Raises:
        CodecError: another dtype, a name that UTF-8 cannot express, or so many tensors that their header does not fit
            into a frame (about 10,000).
    """
    header = _header_of(layout_of(tensors))
    if len(header) > _CAPACITY:
        raise CodecError(f"header of {len(tensors)} tensors has {len(header)} bytes: at most {_CAPACITY} fit a frame")
    return _frames(header, tensors)


def decode(frames: Iterable[bytes | memoryview], expected: Layout) -> dict[str, np.ndarray]:
    """The tensors of `encode`'s frames. Each frame is copied out of once and not kept.

    Args:
        frames: in order. No more are asked for than the header promises and one.
        expected: names, shapes and dtypes that the tensors must have; what is allocated is no larger.

    Returns:
        The tensors, writable, in the machine's byte order, in the order of ``expected``.

    Raises:
        CodecError: they are not frames of such tensors: another version, name, shape or dtype, a flipped bit, a frame
            that is missing, surplus, doubled or out of its place. The message says which.
    """
    source = _Payloads(frames)
    _check_header(source.next(_CAPACITY), expected)
    tensors = {}
    pending = memoryview(b"")
    left = _nbytes(expected)
    for name in sorted(expected):
        shape, dtype = expected[name]
        array = np.empty(shape, dtype.newbyteorder("<"))
        target = array.reshape(-1).view(np.uint8).data
        while target:
            if not pending:
                pending = source.next(min(left, _CAPACITY), exactly=True)
                left -= len(pending)
            count = min(len(target), len(pending))
            target[:count] = pending[:count]
            target, pending = target[count:], pending[count:]
        tensors[name] = array.astype(dtype.newbyteorder("="), copy=False)
        if dtype.kind == "b" and (array.view(np.uint8) > 1).any():
            raise CodecError(f"tensor {name!r} holds bytes that are no bools")
    source.check_end()
    return {name: tensors[name] for name in expected}


def read_frames(file: BinaryIO) -> Iterator[bytes]:
    """The frames that stand one after another in a file, up to its end.

    Raises:
        CodecError: the file ends within a frame, or a frame says that it is longer than frames are.
    """
    while prefix := file.read(_FRAME.size):
        length = _FRAME.unpack(prefix)[1] if len(prefix) == _FRAME.size else 0
        if length > _CAPACITY:
            raise CodecError(f"a frame says that it has {length} bytes: more than {_CAPACITY}")
        payload = file.read(length)
        if len(prefix) < _FRAME.size or len(payload) < length:
            raise CodecError("the file ends within a frame")
        yield prefix + payload


def _header_of(layout: Layout) -> bytes:
    tensors = [(name, dtype.name, [int(length) for length in shape]) for name, (shape, dtype) in sorted(layout.items())]
    for name, (_, dtype) in layout.items():
        if dtype not in _DTYPES:
            raise CodecError(f"tensor {name!r} has the dtype {dtype}: only bools, integers and floats cross a link")
    try:
        text = _Header(plan="dense", nbytes=_nbytes(layout), tensors=tensors).model_dump_json()
    except ValueError as error:
        raise CodecError(f"a tensor's name cannot be written as UTF-8: {error}") from error
    return _OPENING.pack(_MAGIC, VERSION) + text.encode()


def _nbytes(layout: Layout) -> int:
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout.values())


def _frames(header: bytes, tensors: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    crc, index, parts, room = 0, 0, [memoryview(header)], 0
    for name in sorted(tensors):
        array = tensors[name]
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        rest = little.reshape(-1).view(np.uint8).data
        while rest:
            if not room:
                frame, crc = _sealed(index, parts, crc)
                yield frame
                index, parts, room = index + 1, [], _CAPACITY
            parts.append(rest[:room])
            rest, room = rest[room:], room - len(parts[-1])
    yield _sealed(index, parts, crc)[0]


def _sealed(index: int, parts: list[memoryview], crc: int) -> tuple[bytes, int]:
    """A frame and its CRC, which goes on from the one given."""
    length = sum(map(len, parts))
    crc = _crc(index, length, parts, crc)
    return b"".join([_FRAME.pack(index, length, crc), *parts]), crc


def _crc(index: int, length: int, parts: Iterable[memoryview], crc: int) -> int:
    crc = zlib.crc32(struct.pack("<II", index, length), crc)
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


class _Payloads:
    """Payloads of frames in order, each checked."""

    def __init__(self, frames: Iterable[bytes | memoryview]) -> None:
        self._frames = iter(frames)
        self._index = 0
        self._crc = 0

    def next(self, most: int, *, exactly: bool = False) -> memoryview:
        """The next payload, of at most or of exactly so many bytes."""
        frame = next(self._frames, None)
        if frame is None:
            raise CodecError(f"frame {self._index} is missing: the update was cut off")
        view = memoryview(frame).cast("B")
        if len(view) < _FRAME.size:
            raise CodecError(f"frame {self._index} has {len(view)} bytes: not even its own header")
        index, length, crc = _FRAME.unpack_from(view)
        payload = view[_FRAME.size :]
        if len(payload) != length:
            raise CodecError(f"frame {self._index} has {len(payload)} bytes and says {length}: it was cut or joined")
        if index != self._index:
            raise CodecError(f"frame {index} came where {self._index} belongs: doubled, missing or out of order")
        if length > most or (exactly and length != most):
            raise CodecError(f"frame {index} has {length} bytes: {most} belong there")
        self._crc = _crc(index, length, [payload], self._crc)
        if crc != self._crc:
            raise CodecError(f"frame {index} is damaged, or of another update: its checksum is wrong")
        self._index += 1
        return payload

    def check_end(self) -> None:
        if next(self._frames, None) is not None:
            raise CodecError(f"a frame came after the last: {self._index} belong to the update")


def _check_header(payload: memoryview, expected: Layout) -> None:
    """Raise CodecError unless the first frame's payload announces just what is expected."""
    own = _header_of(expected)
    if payload == own:
        return
    if len(payload) < _OPENING.size:
        raise CodecError(f"frame 0 has {len(payload)} bytes: no update begins so")
    magic, version = _OPENING.unpack_from(payload)
    if magic != _MAGIC:
        raise CodecError(f"frame 0 begins with {magic!r}: no update begins so")
    if version != VERSION:
        raise CodecError(f"update has the format version {version}: this side reads {VERSION}; update the older side")
    # Whoever is expected sends a header of this length; one that is much longer is not worth the memory to parse it.
    if len(payload) > 2 * len(own) + 4096:
        raise CodecError(f"header has {len(payload)} bytes: expected {len(own)}")
    try:
        header = _Header.model_validate_json(bytes(payload[_OPENING.size :]))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "JSON"
        raise CodecError(f"header is not that of a dense update: {place}: {first['msg']}") from error
    _compare(header, expected)


def _compare(header: _Header, expected: Layout) -> None:
    """Raise CodecError where a header announces something else."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for name, dtype, shape in header.tensors:
        if name in found:
            raise CodecError(f"header has the tensor {name!r} twice")
        found[name] = (tuple(shape), dtype)
    check_layout({name: (shape, _dtype(name, dtype)) for name, (shape, dtype) in found.items()}, expected)
    if list(found) != sorted(found):
        raise CodecError("header does not have its tensors in the order of their names")
    if header.nbytes != _nbytes(expected):
        raise CodecError(f"header says {header.nbytes} bytes: its tensors have {_nbytes(expected)}")


def _dtype(name: str, text: str) -> np.dtype:
    for dtype in _DTYPES:
        if dtype.name == text:
            return dtype
    raise CodecError(f"tensor {name!r} has the dtype {text!r}: only bools, integers and floats cross a link")
