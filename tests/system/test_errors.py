"""Every known error has its code and one line with a remedy; the checks before a run find what they look for."""

import errno
import importlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from isogon.actors.environments.wordle.vocabulary import load_words
from isogon.actors.pools.contract import PoolExhausted, WorkFailed
from isogon.system import errors
from isogon.system.config.files import ConfigError, ResumeRefused
from isogon.system.errors import (
    ExitCode,
    UserError,
    check_device,
    check_port_free,
    check_ray_address,
    explain,
    log_details,
)
from isogon.system.runs.errors import (
    RunDirectoryDamaged,
    RunDirectoryExists,
    RunDirectoryFleeting,
    RunDirectoryInUse,
    RunDirectoryMissing,
    RunDirectoryUnwritable,
)


def raised(action: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - any error will do: it is explained below
        action()
    return caught.value


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a.b is 3"), 2),
        (RunDirectoryExists("there"), 10),
        (RunDirectoryMissing("there"), 10),
        (RunDirectoryInUse("there"), 10),
        (RunDirectoryDamaged("there"), 10),
        (RunDirectoryFleeting("there"), 10),
        (RunDirectoryUnwritable("there"), 14),
        (ResumeRefused("seed: 1 -> 2"), 12),
        (PoolExhausted("worker 0 is lost"), 20),
        (WorkFailed("worker 0 raised"), 21),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/x"), 13),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/runs/x"), 13),
        (PermissionError(errno.EACCES, "Permission denied", "/runs/x"), 14),
        (OSError(errno.EROFS, "Read-only file system", "/runs/x"), 14),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/runs/x"), 14),
        (MemoryError(), 22),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
        (SystemExit(143), 143),
        (UserError(ExitCode.CUDA, "no GPU"), 17),
        (KeyError("x"), 1),
        (ValueError("nobody raised it"), 1),
        (OSError(errno.EIO, "Input/output error"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_codes(error: BaseException, code: int) -> None:
    told = explain(error)
    assert told.code == code
    assert told.line
    assert "\n" not in told.line
    if isinstance(error, OSError) and error.filename:
        assert error.filename in told.line
    elif isinstance(error, ValueError | RuntimeError | UserError) and code != ExitCode.BUG:
        assert told.line == str(error)


def test_codes_are_apart_and_keep_clear_of_the_shell() -> None:
    codes = [int(code) for code in ExitCode]
    assert len(set(codes)) == len(codes)
    assert all(code < 126 or code in (130, 141, 143) for code in codes)
    assert all(str(int(code)) in (errors.__doc__ or "") for code in (2, 10, 11, 12, 13, 14, 18, 19, 20, 21))


@pytest.mark.parametrize("name", errors._CODES)
def test_named_classes_are_there(name: str) -> None:
    module, _, qualname = name.rpartition(".")
    kind = getattr(importlib.import_module(module), qualname)
    assert f"{kind.__module__}.{kind.__qualname__}" == name
    assert issubclass(kind, BaseException)


@pytest.mark.parametrize("name", errors._ORIGINS)
def test_named_origins_are_there(name: str) -> None:
    assert importlib.util.find_spec(name) is not None


def test_an_exception_of_ray_is_explained() -> None:
    exceptions = importlib.import_module("ray.exceptions")
    assert explain(exceptions.ActorDiedError()).code == ExitCode.WORKERS_LOST
    told = explain(exceptions.OutOfMemoryError("the node is out of memory."))
    assert told.code == ExitCode.OUT_OF_MEMORY
    assert "set replay.capacity" in told.line


def test_explaining_loads_neither_ray_nor_torch() -> None:
    script = (
        "import sys; from isogon.system.errors import explain; explain(KeyError('x')); explain(OSError(28, 'full'));"
        "sys.exit(any(name in sys.modules for name in ('ray', 'torch', 'numpy', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_word_list_is_named(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("crane\ncranes\n")
    told = explain(raised(lambda: load_words(path)))
    assert told.code == ExitCode.WORD_LIST
    assert str(path) in told.line
    assert "'cranes'" in told.line
    assert explain(raised(lambda: load_words(tmp_path / "none.txt"))).code == ExitCode.WORD_LIST


def test_an_unknown_environment_is_named() -> None:
    from isogon.actors.environments.build import environment_spec
    from isogon.actors.environments.config import GymnasiumConfig

    told = explain(raised(lambda: environment_spec(GymnasiumConfig(id="CartPoll-v1"))))
    assert told.code == ExitCode.ENVIRONMENT
    assert "CartPoll-v1" in told.line


def test_a_value_error_of_a_library_is_a_bug() -> None:
    class Model(BaseModel):
        number: int

    assert explain(raised(lambda: int("x"))).code == ExitCode.BUG
    assert explain(raised(lambda: Model.model_validate({"number": "x"}))).code == ExitCode.BUG


def test_causes_are_looked_at() -> None:
    def fail() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/runs/x")
        except OSError as error:
            raise RuntimeError("could not save") from error

    assert explain(raised(fail)).code == ExitCode.DISK_FULL


def test_a_full_disk_under_safetensors() -> None:
    from safetensors import SafetensorError

    told = explain(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert told.code == ExitCode.DISK_FULL


def test_a_ray_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def ray_init(error: Exception) -> None:
        scope: dict[str, Any] = {"__name__": "ray._private.worker"}
        exec("def init(error):\n    raise error", scope)
        scope["init"](error)

    told = explain(raised(lambda: ray_init(ConnectionError("no running instance."))))
    assert told.code == ExitCode.RAY_UNREACHABLE
    assert told.line.startswith("Ray: no running instance: start a cluster there")
    assert explain(raised(lambda: ray_init(ValueError("port 1 is in use")))).code == ExitCode.RAY_START
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    told = explain(raised(lambda: ray_init(ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:8265"))))
    assert told.code == ExitCode.RAY_UNREACHABLE
    assert "at 10.0.0.1:8265, though something answers there: name the head's own port" in told.line
    assert "(not set now)" in told.line
    error = importlib.import_module("ray.exceptions").AuthenticationError("No token was found. Ensure that ...")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert explain(error).code == ExitCode.RAY_UNREACHABLE
    assert explain(error).line.startswith("Ray: No token was found: set RAY_AUTH_MODE to the same for the head")
    assert "(token now)" in explain(error).line
    mismatch = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\nThis process on node x "
    )
    mismatch += "was started with:\n    Ray: 2.58.0\n    Python: 3.12.1\n"
    told = explain(raised(lambda: ray_init(RuntimeError(mismatch))))
    assert told.code == ExitCode.RAY_MISMATCH
    assert told.line.startswith(
        "the cluster runs Ray 2.60.0 on Python 3.11.7, and this process Ray 2.58.0 on Python 3.12.1: run Isogon with"
    )


def test_long_and_wide_messages_become_one_line() -> None:
    told = explain(WorkFailed("worker 0\n  raised\n" + "x" * 5_000))
    assert told.line.startswith("worker 0 raised x")
    assert len(told.line) <= 600
    assert explain(ConfigError("a\nb")).line == "a\nb"
    assert explain(WorkFailed("\x1b[36mray::EnvActor\x1b[0m died")).line == "ray::EnvActor died"


def test_log_details_appends_the_whole_chain(tmp_path: Path) -> None:
    def fail() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("outer") from error

    path = tmp_path / "attempts" / "1" / "log.txt"
    for _ in range(2):
        log_details(raised(fail), path)
    text = path.read_text()
    assert text.count("KeyError: 'inner'") == 2
    assert text.count("RuntimeError: outer") == 2
    assert "in fail" in text


# Checks before a run.


def test_check_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    check_device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"device is cuda and .*: set device=cpu") as caught:
        check_device("cuda")
    assert caught.value.code == ExitCode.CUDA
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_device("cuda")


def test_check_port_free() -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} cannot be used") as caught:
            check_port_free(port)
        assert caught.value.code == ExitCode.RAY_START
    check_port_free(port)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "localhost:{}", "ray://127.0.0.1:{}"])
def test_check_ray_address(form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_ray_address(form.format(port), 5.0)
    with pytest.raises(UserError, match=re.escape(form.format(port)) + " does not answer") as caught:
        check_ray_address(form.format(port), 5.0)
    assert caught.value.code == ExitCode.RAY_UNREACHABLE


def test_check_ray_address_gives_up_in_time() -> None:
    # A listener whose queue is full answers nobody, as a host that drops packets does.
    with socket.socket() as server, socket.socket() as first:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        first.connect(server.getsockname())
        began = time.monotonic()
        with pytest.raises(UserError, match="timed out"):
            check_ray_address(f"127.0.0.1:{server.getsockname()[1]}", 0.3)
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("address", ["auto", "local"])
def test_ray_finds_these_itself(address: str) -> None:
    check_ray_address(address, 0.1)


@pytest.mark.parametrize(
    "address", ["", "host", "host:", "host:x", "host:0", "host:70000", "http://host:8265", "a b:1", "::1:6379"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UserError, match="expected HOST:PORT") as caught:
        check_ray_address(address, 0.1)
    assert caught.value.code == ExitCode.RAY_UNREACHABLE
