"""Checkpoints are whole or not there, and what is not as it was written is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import isogon.system.runs.checkpoints as module
from isogon.system.runs.checkpoints import (
    CheckpointInvalid,
    CheckpointRef,
    installed_versions,
    load_checkpoint,
    save_checkpoint,
    verify_checkpoint,
)

FILES = ["learner.json", "learner.safetensors", "manifest.json", "replay.json", "replay.safetensors"]


def save(folder: Path, step: int = 5, value: float = 1.0) -> Path:
    parts: dict[str, Any] = {
        "learner": {"weight": torch.full((3, 4), value), "step": step, "best": float("-inf")},
        "replay": {"reward": np.arange(6, dtype=np.float16)},
    }
    save_checkpoint(folder, parts, step=step, attempt=2, info={"seconds": 1.5, "worst": float("nan")})
    return folder


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save(tmp_path / "2-5"))
    assert (checkpoint.attempt, checkpoint.step, checkpoint.ref) == (2, 5, CheckpointRef(2, 5))
    assert checkpoint.info["seconds"] == 1.5
    assert np.isnan(checkpoint.info["worst"])
    assert checkpoint.versions == installed_versions()
    assert set(checkpoint.parts) == {"learner", "replay"}
    assert torch.equal(checkpoint.parts["learner"]["weight"], torch.ones(3, 4))
    assert checkpoint.parts["learner"]["best"] == float("-inf")
    np.testing.assert_array_equal(checkpoint.parts["replay"]["reward"], np.arange(6, dtype=np.float16))
    verify_checkpoint(tmp_path / "2-5")


def test_the_files_are_those_of_the_format(tmp_path: Path) -> None:
    folder = save(tmp_path / "2-5")
    assert sorted(os.listdir(folder)) == FILES
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["format"], manifest["format_version"]) == ("isogon-checkpoint", 1)
    assert manifest["files"].keys() == set(FILES) - {"manifest.json"}
    assert manifest["versions"].keys() >= {"isogon", "numpy", "python", "torch"}
    assert os.listdir(tmp_path) == ["2-5"]


def flip(path: Path, position: float, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[int(position * (len(data) - 1))] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_is_found(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "2-5")
    original = (folder / name).read_bytes()
    for position in np.linspace(0, 1, 40):
        for bit in (0, 6):
            flip(folder / name, position, bit)
            for check in (load_checkpoint, verify_checkpoint):
                with pytest.raises(CheckpointInvalid, match=name.replace(".", r"\.")) as caught:
                    check(folder)
                assert "\n" not in str(caught.value)
            (folder / name).write_bytes(original)
    load_checkpoint(folder)


def test_a_step_that_was_changed_is_found(tmp_path: Path) -> None:
    manifest = save(tmp_path / "2-5") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"step": 5', '"step": 6'))
    with pytest.raises(CheckpointInvalid, match=r"manifest\.json is not as it was written"):
        load_checkpoint(manifest.parent)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda f: os.truncate(f / "learner.safetensors", 20), r"learner\.safetensors has 20 bytes"),
    "emptied": (lambda f: os.truncate(f / "manifest.json", 0), r"manifest\.json is not JSON"),
    "longer": (lambda f: lengthen(f / "replay.json"), r"replay\.json has \d+ bytes"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), r"manifest\.json is missing"),
    "no part": (lambda f: (f / "replay.safetensors").unlink(), r"replay\.safetensors is missing"),
    "a folder for a file": (lambda f: folder_for(f / "replay.json"), r"replay\.json cannot be read"),
    "unknown file": (lambda f: (f / "x.pkl").write_bytes(b""), r"x\.pkl is not in the manifest"),
    "all gone": (lambda f: shutil.rmtree(f), r"manifest\.json is missing"),
    "another format": (lambda f: edit(f, format="x"), "not the manifest of an Isogon checkpoint"),
    "a list": (lambda f: (f / "manifest.json").write_text("[]"), "not the manifest of an Isogon checkpoint"),
    "newer": (lambda f: edit(f, format_version=2), "format version 2 and this Isogon reads up to 1: upgrade isogon"),
    "odd version": (lambda f: edit(f, format_version="one"), "format version 'one': expected 1"),
    "no step": (lambda f: edit(f, step=-1), "step"),
    "new field": (lambda f: edit(f, extra=1), "extra"),
    "odd part": (lambda f: add_file(f, "learner.pkl"), "lists files that are no parts"),
    "outside": (lambda f: add_file(f, "../replay.json"), r"\.\./replay\.json is missing"),
}


def lengthen(path: Path) -> None:
    with path.open("a") as file:
        file.write(" ")


def folder_for(path: Path) -> None:
    path.unlink()
    path.mkdir()


def edit(folder: Path, **changes: Any) -> None:
    """A manifest with a right seal, as another version or a stranger would write it."""
    path = folder / "manifest.json"
    content = {**json.loads(path.read_text()), **changes}
    content.pop("sha256")
    path.write_text(module._sealed(content))


def add_file(folder: Path, name: str) -> None:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    shutil.copy(folder / "replay.json", folder / name)
    edit(folder, files={**files, name: files["replay.json"]})


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(damage: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "2-5")
    apply, message = DAMAGES[damage]
    apply(folder)
    for check in (load_checkpoint, verify_checkpoint):
        with pytest.raises(CheckpointInvalid, match=message):
            check(folder)


def test_a_pickle_under_a_right_seal_is_not_unpickled(tmp_path: Path) -> None:
    folder = save(tmp_path / "2-5")
    marker = tmp_path / "unpickled"
    torch.save({"x": Evil(marker)}, folder / "learner.safetensors")
    data = (folder / "learner.safetensors").read_bytes()
    files = json.loads((folder / "manifest.json").read_text())["files"]
    files["learner.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(folder, files=files)
    with pytest.raises(CheckpointInvalid, match="not a safetensors file"):
        load_checkpoint(folder)
    assert not marker.exists()


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", ["manifest", "", "a/b", "../a", "A", "a.b"])
def test_part_names_are_checked(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="parts has the name"):
        save_checkpoint(tmp_path / "1-0", {name: {}}, step=0, attempt=1, info={})
    assert os.listdir(tmp_path) == []


def test_content_that_cannot_be_stored_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="info holds an array at '/x'"):
        save_checkpoint(tmp_path / "1-0", {}, step=0, attempt=1, info={"x": np.zeros(1)})
    with pytest.raises(ValueError, match=r"builtins\.set"):
        save_checkpoint(tmp_path / "1-0", {"a": {}, "b": {"x": set()}}, step=0, attempt=1, info={})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="step"):
        save_checkpoint(tmp_path / "1-0", {}, step=-1, attempt=1, info={})
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_is_never_replaced(tmp_path: Path) -> None:
    folder = save(tmp_path / "2-5", value=1.0)
    with pytest.raises(FileExistsError, match="2-5 is there already"):
        save(folder, value=2.0)
    assert load_checkpoint(folder).parts["learner"]["weight"][0, 0] == 1.0
    assert os.listdir(tmp_path) == ["2-5"]


@pytest.mark.parametrize("ref", [CheckpointRef(1, 0), CheckpointRef(12, 34567)])
def test_names_are_parsed(ref: CheckpointRef) -> None:
    assert CheckpointRef.parse(ref.name) == ref


@pytest.mark.parametrize("name", ["", "1", "0-1", "1-", "01-2", "1-02", "1-2-3", "1-x", "-1-2", "1-2 ", "١-2"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected '<attempt>-<step>'"):
        CheckpointRef.parse(name)


def test_every_file_is_flushed_before_the_rename_and_the_parent_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def traced_fsync(descriptor: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        calls.append("parent" if target == tmp_path else "folder" if target.is_dir() else target.name)
        fsync(descriptor)

    def traced_rename(old: Path, new: Path) -> None:
        calls.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "rename", traced_rename)
    save(tmp_path / "2-5")
    assert sorted(calls[:4]) == sorted(set(FILES) - {"manifest.json"})
    assert calls[4:] == ["manifest.json", "folder", "rename", "parent"]


@pytest.mark.parametrize("failing", range(8))
def test_a_failure_at_any_flush_leaves_all_or_nothing(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    fsync = os.fsync

    def fail_once(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing + 1:
            raise OSError(errno.EIO, "disk gone")
        fsync(descriptor)

    save(tmp_path / "2-4", step=4)
    monkeypatch.setattr(os, "fsync", fail_once)
    if failing < 7:
        with pytest.raises(OSError, match="disk gone"):
            save(tmp_path / "2-5")
    else:
        save(tmp_path / "2-5")
    assert sorted(os.listdir(tmp_path)) == (["2-4", "2-5"] if failing >= 6 else ["2-4"])
    for folder in tmp_path.iterdir():
        load_checkpoint(folder)


def test_a_full_disk_leaves_the_earlier_checkpoint(mount_disk: Callable[[str], Path]) -> None:
    small_disk = mount_disk("size=1m")
    save(small_disk / "2-1", step=1)
    large = {"weight": torch.zeros(2**18)}
    with pytest.raises(OSError, match="No space left") as caught:
        save_checkpoint(small_disk / "2-2", {"a": {"x": 1}, "b": large}, step=2, attempt=2, info={})
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(small_disk) == ["2-1"]
    load_checkpoint(small_disk / "2-1")
    save(small_disk / "2-2", step=2)


SAVER = """
import sys
from pathlib import Path
import torch
from isogon.system.runs.checkpoints import installed_versions, save_checkpoint
assert "ray" in installed_versions()
assert "ray" not in sys.modules
folder = Path(sys.argv[1])
step = int(sys.argv[2])
print("ready", flush=True)
while True:
    weights = torch.full((50_000,), float(step))
    save_checkpoint(folder / f"1-{step}", {"a": {"w": weights}, "b": {"w": weights}}, step=step, attempt=1, info={})
    step += 1
"""


def test_killed_at_any_moment_every_checkpoint_is_whole(tmp_path: Path) -> None:
    moments = random.Random(0)
    step = halves = 0
    for _ in range(3):
        saver = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path), str(step)], stdout=subprocess.PIPE, text=True
        )
        assert saver.stdout is not None
        assert saver.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0.05, 0.25))
        saver.send_signal(signal.SIGKILL)
        saver.wait()
        saver.stdout.close()
        names = os.listdir(tmp_path)
        halves += sum(name.startswith(".") for name in names)
        refs = sorted(CheckpointRef.parse(name) for name in names if not name.startswith("."))
        assert [ref.step for ref in refs] == list(range(len(refs)))
        for ref in refs[step:]:
            parts = load_checkpoint(tmp_path / ref.name).parts
            assert torch.equal(parts["a"]["w"], torch.full((50_000,), float(ref.step)))
            assert torch.equal(parts["b"]["w"], parts["a"]["w"])
        step = len(refs)
    assert step > 0
    assert halves > 0, "no kill came while a checkpoint was being written: nothing was tested"
