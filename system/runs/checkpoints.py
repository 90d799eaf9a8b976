"""Checkpoints: folders of safetensors and JSON with a manifest; whole or not there, checked before reading.

::

    <attempt>-<step>/
        learner.json  learner.safetensors     one pair per part, as `learners.state` stores it
        manifest.json                         written last: format, step, attempt, versions, size and SHA-256 per file

Nothing is ever unpickled. The manifest holds a SHA-256 of itself, so that no flipped bit in it goes unseen either.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...learners.state import StateTree, decode_state, encode_state, join_state, split_state
from .atomic_files import sync_folder, temporary_sibling, write_durably

FORMAT = "isogon-checkpoint"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"

_PART_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SUFFIXES = (".json", ".safetensors")


class CheckpointInvalid(ValueError):
    """A checkpoint is not whole, not as it was written, or of a format that this version cannot read.

    The message names the file and what is wrong with it. An older checkpoint may serve.
    """


@dataclass(frozen=True, order=True, slots=True)
class CheckpointRef:
    """The name of a checkpoint in its run: which attempt wrote it, after how many learner updates."""

    attempt: int
    step: int

    @property
    def name(self) -> str:
        """Of the folder: ``"<attempt>-<step>"``."""
        return f"{self.attempt}-{self.step}"

    @classmethod
    def parse(cls, name: str) -> CheckpointRef:
        """The inverse of ``name``. Raises ValueError for anything else."""
        match = re.fullmatch(r"([1-9]\d*)-(0|[1-9]\d*)", name, re.ASCII)
        if match is None:
            raise ValueError(f"checkpoint is called {name!r}: expected '<attempt>-<step>', as in '1-5000'")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        step: learner updates when it was taken.
        attempt: that wrote it.
        info: what `save_checkpoint` was given.
        parts: the state trees by name.
        versions: of isogon and of what it stands on, by name, when it was written.
    """

    step: int
    attempt: int
    info: dict[str, Any]
    parts: dict[str, Any]
    versions: dict[str, str]

    @property
    def ref(self) -> CheckpointRef:
        """Its name."""
        return CheckpointRef(self.attempt, self.step)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    bytes: int
    sha256: str


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: str
    format_version: int
    step: int = Field(ge=0)
    attempt: int = Field(ge=1)
    created: str
    versions: dict[str, str]
    info: dict[str, Any]
    files: dict[str, _File]


def installed_versions() -> dict[str, str]:
    """Versions of Python, isogon and what it stands on, as far as they are installed; nothing is imported."""
    return dict(_installed_versions())


@cache
def _installed_versions() -> dict[str, str]:
    # It takes 10 ms, and a federation writes checkpoints by the second.
    versions = {"python": platform.python_version()}
    for name in ("isogon", "numpy", "ray", "torch"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def save_checkpoint(
    folder: Path, parts: Mapping[str, StateTree], *, step: int, attempt: int, info: Mapping[str, Any]
) -> None:
    """Write a checkpoint. When this returns it is on the disk; killed at any moment, there is none of that name.

    Args:
        folder: of the checkpoint; its parent is there.
        parts: state trees by name (lower-case letters, digits, underscores).
        step: learner updates so far, >= 0.
        attempt: of the run, >= 1.
        info: anything else, as JSON values.

    Raises:
        ValueError: a part's name or content, or ``info``, cannot be stored.
        FileExistsError: there is something under that name.
        OSError: it could not be written, for the disk is full, ...; nothing is left of it.
    """
    info_tree, arrays = split_state(info)
    if arrays:
        raise ValueError(f"info holds an array at {min(arrays)!r}: arrays belong into parts")
    for name in parts:
        if not _PART_NAME.fullmatch(name) or name == "manifest":
            raise ValueError(f"parts has the name {name!r}: expected lower-case letters, digits, _; not 'manifest'")
    if folder.exists():
        raise FileExistsError(f"checkpoint {folder} is there already")
    temporary = temporary_sibling(folder)
    temporary.mkdir()
    try:
        files: dict[str, _File] = {}
        for name, tree in parts.items():
            for suffix, data in zip(_SUFFIXES, encode_state(tree), strict=True):
                write_durably(temporary / (name + suffix), data)
                files[name + suffix] = _File(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        manifest = _Manifest(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            step=step,
            attempt=attempt,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=installed_versions(),
            info=info_tree,
            files=files,
        )
        write_durably(temporary / MANIFEST, _sealed(manifest.model_dump()))
        sync_folder(temporary)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, after checking it against its manifest.

    Raises:
        CheckpointInvalid: it is not there, not whole, not as it was written, or of a newer format.
    """
    manifest = _read_manifest(folder)
    parts: dict[str, Any] = {}
    for part in _part_names(folder, manifest):
        tree, tensors = (_read_file(folder, part + suffix, manifest) for suffix in _SUFFIXES)
        try:
            parts[part] = decode_state(tree, tensors)
        except ValueError as error:
            raise CheckpointInvalid(f"{folder / part}.json and .safetensors: {error}") from error
    return Checkpoint(manifest.step, manifest.attempt, join_state(manifest.info, {}), parts, manifest.versions)


def verify_checkpoint(folder: Path) -> None:
    """Check everything that `load_checkpoint` checks before it decodes. Raises `CheckpointInvalid`."""
    manifest = _read_manifest(folder)
    for part in _part_names(folder, manifest):
        for suffix in _SUFFIXES:
            _read_file(folder, part + suffix, manifest)


def _seal(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sealed(manifest: Mapping[str, Any]) -> str:
    return json.dumps({**manifest, "sha256": _seal(manifest)}, indent=1, allow_nan=False) + "\n"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointInvalid(f"{path} is missing") from error
    except OSError as error:
        raise CheckpointInvalid(f"{path} cannot be read: {error.strerror}") from error


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / MANIFEST
    try:
        content = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointInvalid):
            raise
        raise CheckpointInvalid(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointInvalid(f"{path} is not the manifest of an Isogon checkpoint")
    version = content.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointInvalid(
            f"{path} has format version {version} and this Isogon reads up to {FORMAT_VERSION}: upgrade isogon"
        )
    if version != FORMAT_VERSION:
        raise CheckpointInvalid(f"{path} has format version {version!r}: expected {FORMAT_VERSION}")
    if content.pop("sha256", None) != _seal(content):
        raise CheckpointInvalid(f"{path} is not as it was written: its SHA-256 differs")
    try:
        return _Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointInvalid(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _part_names(folder: Path, manifest: _Manifest) -> list[str]:
    """The parts, after checking that the folder holds their files and the manifest, and nothing else."""
    expected = manifest.files.keys() | {MANIFEST}
    found = {entry.name for entry in folder.iterdir()}
    if missing := sorted(expected - found):
        raise CheckpointInvalid(f"{folder / missing[0]} is missing")
    if unknown := sorted(found - expected):
        raise CheckpointInvalid(f"{folder / unknown[0]} is not in the manifest")
    parts = sorted({Path(name).stem for name in manifest.files})
    if {part + suffix for part in parts for suffix in _SUFFIXES} != manifest.files.keys():
        raise CheckpointInvalid(f"{folder / MANIFEST} lists files that are no parts")
    return parts


def _read_file(folder: Path, name: str, manifest: _Manifest) -> bytes:
    data, expected = _read(folder / name), manifest.files[name]
    if len(data) != expected.bytes:
        raise CheckpointInvalid(f"{folder / name} has {len(data)} bytes: {expected.bytes} were written")
    if hashlib.sha256(data).hexdigest() != expected.sha256:
        raise CheckpointInvalid(f"{folder / name} is not as it was written: its SHA-256 differs")
    return data
