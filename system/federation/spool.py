"""Updates that have arrived and wait for their commit.

A spool holds each whole, until the checkpoint that has its commit is on the disk. In memory goes only a light
`SpoolEntry`; updates are loaded one at a time when they are summed up. `DiskSpool` outlives its process: what `put`
returned from may be acknowledged, for a restarted server finds it. `MemorySpool` is for simulations, where nobody wants
to wait for a disk.

A file of `DiskSpool` is one line and the codec's frames; its name begins with the number of the arrival::

    <CRC-32 of the rest of the line> {"format": 1, "token": "1/silo-a/17", "meta": {...}}
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import filelock

from ...actors.work import Update
from ...learners.compression import CodecError, Layout, check_layout, decode, encode, layout_of, read_frames
from ...schedulers.events import Token
from ..runs.atomic_files import remove_leftovers, sync_folder, write_atomically
from ..runs.errors import RunDirectoryInUse

_T = TypeVar("_T")

_FORMAT = 1
_LONGEST_LINE = 1 << 20
_NAME = re.compile(r"(\d{12})-[0-9a-f]{32}\.update")


@dataclass(frozen=True)
class SpoolEntry:
    """One update that waits.

    Attributes:
        arrival: counts up in the order of arrival.
        token: names the work.
        meta: what was put beside the update, as JSON gives it back: tuples are lists.
        nbytes: of the update's arrays.
    """

    arrival: int
    token: Token
    meta: dict[str, Any]
    nbytes: int


class Spool(Protocol):
    """Where updates wait. Each is there from `put` to `remove`."""

    def put(self, token: Token, meta: Mapping[str, Any], update: Update) -> SpoolEntry:
        """Take an update in; when this returns it is kept, and when it raises nothing of it is.

        Args:
            token: names the work; one that is here already is refused.
            meta: JSON values.
            update: as the spool's layout has it. It belongs to the spool from now on.

        Raises:
            ValueError: the token is here already, ``meta`` is no JSON, or the update is laid out otherwise.
            OSError: it could not be written, for the disk is full, ...
        """
        ...

    def load(self, entry: SpoolEntry) -> Update:
        """The update itself, not to be written into.

        Raises:
            ValueError: it is not as it was put, or not here.
            OSError: it could not be read.
        """
        ...

    def remove(self, *entries: SpoolEntry) -> None:
        """Let go of updates, for good. One that is not here any more is passed over."""
        ...

    def entries(self) -> list[SpoolEntry]:
        """What waits, in order of arrival."""
        ...

    def close(self) -> None:
        """Let go of the folder; what waits on the disk stays there."""
        ...


class MemorySpool:
    """A spool that ends with its process.

    Args:
        layout: of every update.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._held: dict[Token, tuple[SpoolEntry, Update]] = {}
        self._arrivals = 0

    def put(self, token: Token, meta: Mapping[str, Any], update: Update) -> SpoolEntry:
        """See `Spool.put`."""
        entry = _checked_entry(self._arrivals, token, meta, update, self._layout, self._held)
        self._held[token] = (entry, update)
        self._arrivals += 1
        return entry

    def load(self, entry: SpoolEntry) -> Update:
        """See `Spool.load`."""
        return _found(entry, self._held)[1]

    def remove(self, *entries: SpoolEntry) -> None:
        """See `Spool.remove`."""
        for entry in entries:
            self._held.pop(entry.token, None)

    def entries(self) -> list[SpoolEntry]:
        """See `Spool.entries`."""
        return [entry for entry, _ in self._held.values()]

    def close(self) -> None:
        """See `Spool.close`."""


class DiskSpool:
    """A spool in a folder. Only one process may have it open, and only one `DiskSpool`.

    Opening reads what an earlier process left, each file whole, one at a time. A file half-written was never
    acknowledged and is removed. A damaged one is renamed to end in ``.damaged``, where nobody takes it for an update
    again, and reported.

    Removal follows the checkpoint that has the commit; a process killed between the two leaves entries that are in the
    checkpoint already, and whoever resumes removes those by their tokens.

    Args:
        folder: is made where it is missing.
        layout: of every update.
        on_damage: is told a damaged file's new path and what is wrong with it.

    Raises:
        RunDirectoryInUse: it is open elsewhere.
        OSError: it cannot be read or written.
    """

    def __init__(self, folder: Path, layout: Layout, on_damage: Callable[[Path, ValueError], None]) -> None:
        self._folder = folder
        self._layout = layout
        self._held: dict[Token, tuple[SpoolEntry, Path]] = {}
        self._arrivals = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(folder / ".lock", timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            raise RunDirectoryInUse(
                f"spool {folder} is in use by another server: wait until it is done, end it, or name another directory"
            ) from error
        try:
            self._find(on_damage)
        except BaseException:
            self._lock.release()
            raise

    def put(self, token: Token, meta: Mapping[str, Any], update: Update) -> SpoolEntry:
        """See `Spool.put`; the update is on the disk when this returns."""
        entry = _checked_entry(self._arrivals, token, meta, update, self._layout, self._held)
        # Clients may be called anything; files may not.
        digest = hashlib.sha256(str(token).encode(errors="surrogatepass")).hexdigest()
        path = self._folder / f"{entry.arrival:012}-{digest[:32]}.update"
        try:
            write_atomically(path, _content(entry, update))
        except BaseException:
            # The file may stand already, where only its folder could not be flushed.
            path.unlink(missing_ok=True)
            raise
        self._held[token] = (entry, path)
        self._arrivals += 1
        return entry

    def load(self, entry: SpoolEntry) -> Update:
        """See `Spool.load`; it is checked anew."""
        with _opened(_found(entry, self._held)[1]) as file:
            _read_line(file)
            return decode(read_frames(file), self._layout)

    def remove(self, *entries: SpoolEntry) -> None:
        """See `Spool.remove`; they are off the disk when this returns."""
        for entry in entries:
            if entry.token in self._held:
                self._held[entry.token][1].unlink(missing_ok=True)
                del self._held[entry.token]
        if entries:
            sync_folder(self._folder)

    def entries(self) -> list[SpoolEntry]:
        """See `Spool.entries`."""
        return [entry for entry, _ in self._held.values()]

    def close(self) -> None:
        """See `Spool.close`."""
        self._lock.release()

    def _find(self, on_damage: Callable[[Path, ValueError], None]) -> None:
        remove_leftovers(self._folder)
        for path in sorted(self._folder.glob("*.update*")):
            match = _NAME.match(path.name)
            if match is None:
                continue
            self._arrivals = int(match[1]) + 1
            if match[0] != path.name:
                continue
            try:
                entry = self._read_entry(path, int(match[1]))
            except ValueError as error:
                aside = path.with_name(f"{path.name}.damaged")
                path.rename(aside)
                sync_folder(self._folder)
                on_damage(aside, error)
            else:
                self._held[entry.token] = (entry, path)

    def _read_entry(self, path: Path, arrival: int) -> SpoolEntry:
        with _opened(path) as file:
            token, meta = _read_line(file)
            if token in self._held:
                raise ValueError(f"it holds the update {token}, which another file holds too")
            update = decode(read_frames(file), self._layout)
        return SpoolEntry(arrival, token, meta, _nbytes(update))


def _checked_entry(
    arrival: int, token: Token, meta: Mapping[str, Any], update: Update, layout: Layout, held: Mapping[Token, object]
) -> SpoolEntry:
    if token in held:
        raise ValueError(f"update {token} is in the spool already")
    check_layout(layout_of(update), layout)
    try:
        plain = json.loads(json.dumps(dict(meta), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"meta of update {token} is no JSON: {error}") from error
    return SpoolEntry(arrival, token, plain, _nbytes(update))


def _found(entry: SpoolEntry, held: Mapping[Token, _T]) -> _T:
    if entry.token not in held:
        raise ValueError(f"update {entry.token} is not in the spool: it was removed")
    return held[entry.token]


def _nbytes(update: Update) -> int:
    return sum(array.nbytes for array in update.values())


def _content(entry: SpoolEntry, update: Update) -> Iterator[bytes]:
    line = json.dumps({"format": _FORMAT, "token": str(entry.token), "meta": entry.meta}).encode() + b"\n"
    if len(line) > _LONGEST_LINE - 9:
        raise ValueError(f"meta of update {entry.token} has {len(line)} bytes: a mebibyte is the most")
    yield b"%08x " % zlib.crc32(line) + line
    yield from encode(update)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A spool file to read from. What is wrong with its content is raised with its name."""
    with path.open("rb") as file:
        try:
            yield file
        except ValueError as error:
            raise ValueError(f"spool file {path} is not as it was written: {error}") from error


def _read_line(file: BinaryIO) -> tuple[Token, dict[str, Any]]:
    line = file.readline(_LONGEST_LINE)
    checksum, _, rest = line.partition(b" ")
    if not rest.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(rest):
        raise CodecError("its first line is damaged")
    fields = json.loads(rest)
    if fields["format"] != _FORMAT:
        raise CodecError(f"it has the format {fields['format']}: this version reads {_FORMAT}")
    return Token.parse(fields["token"]), fields["meta"]
