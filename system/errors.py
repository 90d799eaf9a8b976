"""What can go wrong, what a user is told, and how the process ends.

Every part raises `ValueError` for wrong input, and an exception of its own where a caller can act differently. Here all
of them become one line with a remedy and an exit code::

    UserError                       a code and a line, ready to be shown; 24 where `isogon doctor` misses something
    ValueError
    ├── config.files.ConfigError             2   a preset, a key, a value
    ├── config.files.ResumeRefused          12   the config changed where it may not
    ├── runs.errors.RunDirectoryError
    │   ├── RunDirectoryExists              10   there is something where a new one was to be
    │   ├── RunDirectoryMissing             10   there is none to go on with
    │   ├── RunDirectoryInUse               10   another process is at work in it
    │   ├── RunDirectoryFleeting            10   it would go with the Ray job that makes it
    │   ├── RunDirectoryDamaged             10   a file in it is not as it was written
    │   ├── RunDirectoryUnsuited            10   the run in it is of another environment
    │   └── RunDirectoryUnwritable          14   permissions, a read-only disk, a file in the way
    ├── runs.checkpoints.CheckpointInvalid  11   a checkpoint is not as it was written
    ├── learners.plugins.PluginError         2   own code that the config names
    ├── play.entries.EntryRefused            2   a word that cannot be played
    ├── reports.files.ReportUnwritable      14   no folder, or something that is no report stands there
    └── any other                            2   where Isogon raised it while it built a run's parts;
                                         18, 19  where it came from the word list, from the environment
    OSError                             13, 14   a full disk; no permission
    RuntimeError
    ├── pools.contract.PoolExhausted        20   no worker is left
    ├── pools.contract.WorkFailed           21   a worker's own code raised
    └── learner.UpdateFailed                23   a gradient that is not finite, targets out of range
    ray's, torch's                 15..22, 25   see `_CODES` and `_of_ray_init`
    any other                                1   a bug

The table goes by names, so that nothing needs to be imported, Ray least of all, to explain an error.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from types import FrameType

_LONGEST_LINE = 600


class ExitCode(IntEnum):
    """How the process ends. 0 is success; codes above 128 are 128 plus a signal's number, as shells have it."""

    BUG = 1
    CONFIG = 2
    RUN_DIRECTORY = 10
    CHECKPOINT = 11
    RESUME_REFUSED = 12
    DISK_FULL = 13
    PERMISSION = 14
    RAY_UNREACHABLE = 15
    RAY_START = 16
    CUDA = 17
    WORD_LIST = 18
    ENVIRONMENT = 19
    WORKERS_LOST = 20
    WORKER_FAILED = 21
    OUT_OF_MEMORY = 22
    UPDATE_FAILED = 23
    NOT_READY = 24
    RAY_MISMATCH = 25
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141
    TERMINATED = 143


class UserError(Exception):
    """One line for a person, naming the thing, the value and the remedy, and the code that the process ends with.

    Attributes:
        code: see `ExitCode`.
        line: without the program's name.
        has_details: whether a traceback helps the user: it is of the user's own code.
    """

    def __init__(self, code: ExitCode, line: str, *, has_details: bool = False) -> None:
        super().__init__(line)
        self.code = code
        self.line = line
        self.has_details = has_details


_CODES = {
    "isogon.system.config.files.ConfigError": ExitCode.CONFIG,
    "isogon.system.config.files.ResumeRefused": ExitCode.RESUME_REFUSED,
    "isogon.system.runs.errors.RunDirectoryUnwritable": ExitCode.PERMISSION,
    "isogon.system.runs.errors.RunDirectoryError": ExitCode.RUN_DIRECTORY,
    "isogon.system.runs.checkpoints.CheckpointInvalid": ExitCode.CHECKPOINT,
    "isogon.learners.plugins.PluginError": ExitCode.CONFIG,
    "isogon.system.play.entries.EntryRefused": ExitCode.CONFIG,
    "isogon.system.reports.files.ReportUnwritable": ExitCode.PERMISSION,
    "isogon.actors.pools.contract.PoolExhausted": ExitCode.WORKERS_LOST,
    "isogon.actors.pools.contract.WorkFailed": ExitCode.WORKER_FAILED,
    "isogon.learners.learner.UpdateFailed": ExitCode.UPDATE_FAILED,
    "ray.exceptions.RuntimeEnvSetupError": ExitCode.RAY_START,
    "ray.exceptions.OutOfDiskError": ExitCode.DISK_FULL,
    "ray.exceptions.OutOfMemoryError": ExitCode.OUT_OF_MEMORY,
    "ray.exceptions.ObjectStoreFullError": ExitCode.OUT_OF_MEMORY,
    "ray.exceptions.RayActorError": ExitCode.WORKERS_LOST,
    "ray.exceptions.NodeDiedError": ExitCode.WORKERS_LOST,
    "ray.exceptions.WorkerCrashedError": ExitCode.WORKERS_LOST,
    "torch.OutOfMemoryError": ExitCode.OUT_OF_MEMORY,
    "torch.AcceleratorError": ExitCode.CUDA,
    "builtins.MemoryError": ExitCode.OUT_OF_MEMORY,
    "builtins.KeyboardInterrupt": ExitCode.INTERRUPTED,
    "builtins.BrokenPipeError": ExitCode.OUTPUT_CLOSED,
}
"""By the full name of a class; the first one in an exception's method resolution order counts."""

_REMEDIES = {
    ExitCode.RAY_UNREACHABLE: "start a cluster there (ray start --head), or leave ray.address and RAY_ADDRESS out to "
    "use this machine",
    ExitCode.RAY_START: "free the port, memory or disk that it names, or join a running cluster with "
    "--set ray.address=HOST:PORT",
    ExitCode.OUT_OF_MEMORY: "set replay.capacity, replay.batch_size or actors.workers lower, or use a larger machine",
    ExitCode.RAY_MISMATCH: "run Isogon with the cluster's versions, or on the cluster itself, with ray job submit",
    ExitCode.CUDA: "check the driver with nvidia-smi, or set device=cpu",
}
"""For errors that are not Isogon's: Isogon's name their remedy."""

_AUTHENTICATE = (
    "set RAY_AUTH_MODE to the same for the head, the nodes and here ({mode} now); with token, the head's token has to "
    "be here too, in ~/.ray/auth_token or RAY_AUTH_TOKEN"
)

_ORIGINS = {
    "isogon.actors.environments.wordle.vocabulary": ExitCode.WORD_LIST,
    "isogon.actors.environments.build": ExitCode.ENVIRONMENT,
    "isogon.learners.state": ExitCode.CHECKPOINT,
    "isogon.system.builder": ExitCode.CONFIG,
    "isogon.system.evaluation": ExitCode.CONFIG,
    "isogon.system.reports.picture": ExitCode.CONFIG,
    "isogon.system.reports.run_data": ExitCode.CONFIG,
}
"""What a ValueError is about that Isogon raised: the innermost of these modules that was at work."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}


def explain(error: BaseException) -> UserError:
    """What a user is told of an error, and with which code the process ends.

    An error that is not known by itself is looked at through its causes. One that is not known at all is a bug.
    """
    cause: BaseException | None = error
    while cause is not None:
        if known := _known(cause):
            return known
        cause = cause.__cause__
    return UserError(ExitCode.BUG, f"unexpected {type(error).__name__}: {_flat(str(error)) or 'no message'}")


def log_details(error: BaseException, path: Path) -> None:
    """Append the whole traceback, causes included, to a file. Raises OSError where it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {type(error).__name__}\n")
        file.writelines(traceback.format_exception(error))


def check_device(device: str) -> None:
    """Raises UserError where the learner cannot compute on this device."""
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        reason = "no NVIDIA GPU and driver are found" if built else f"PyTorch {torch.__version__} is built without CUDA"
        raise UserError(ExitCode.CUDA, f"device is {device} and {reason}: set device=cpu, or use a machine with a GPU")


def check_port_free(port: int) -> None:
    """Raises UserError where no server can listen on this TCP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # Ports of connections that are just closed are free for servers; ports with a listener are not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            raise UserError(
                ExitCode.RAY_START,
                f"port {port} cannot be used ({error.strerror}): name another, or none to take a free one",
            ) from error


def check_ray_address(address: str, timeout: float) -> None:
    """Find out in ``timeout`` seconds whether anything answers there, which `ray.init` takes minutes for.

    ``local`` starts a Ray and ``auto`` looks for one on this machine: Ray answers both at once, nothing is checked.

    Raises:
        UserError: it is no address, or nothing answers.
    """
    if address in ("auto", "local"):
        return
    match = re.fullmatch(
        r"(?P<client>ray://)?(?P<host>\[[0-9a-fA-F:.]+\]|[^:/\[\]\s]+)(?::(?P<port>\d{1,5}))?", address
    )
    port = match and (match["port"] or (match["client"] and "10001"))
    if not (match and port and 0 < int(port) < 2**16):
        raise UserError(
            ExitCode.RAY_UNREACHABLE,
            f"Ray address {address!r}: expected HOST:PORT, ray://HOST:PORT, auto or local"
            + ("; http://HOST:PORT is where ray job submit sends jobs" if address.startswith("http") else ""),
        )
    try:
        socket.create_connection((match["host"].strip("[]"), int(port)), timeout).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UserError(
            ExitCode.RAY_UNREACHABLE,
            f"Ray address {address} does not answer ({reason}): {_REMEDIES[ExitCode.RAY_UNREACHABLE]}",
        ) from error


def _known(error: BaseException) -> UserError | None:
    if isinstance(error, UserError):
        return error
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
    for name in names:
        if name in _CODES:
            return _told(_CODES[name], error, foreign=not name.startswith("isogon."))
    if isinstance(error, SystemExit):
        return UserError(ExitCode.TERMINATED, "terminated") if error.code == ExitCode.TERMINATED else None
    number = error.errno if isinstance(error, OSError) else None
    if names[0].endswith("SafetensorError") and (found := re.search(r"os error (\d+)", str(error))):
        number = int(found[1])
    if number in _FULL or number in _FORBIDDEN:
        return _of_the_disk(number, error)
    frames = list(_frames(error))
    if "ray.exceptions.AuthenticationError" in names or _in_ray_init(frames):
        return _of_ray_init(error, "ray.exceptions.AuthenticationError" in names)
    if isinstance(error, ValueError) and frames and _module(frames[-1]).startswith("isogon."):
        origins = [_ORIGINS[module] for frame in frames if (module := _module(frame)) in _ORIGINS]
        return _told(origins[-1], error) if origins else None
    return None


def _in_ray_init(frames: Sequence[FrameType]) -> bool:
    return any(_module(frame) == "ray._private.worker" and frame.f_code.co_name == "init" for frame in frames)


def _of_ray_init(error: BaseException, refused: bool) -> UserError:
    """What is told where Ray does not let this process in, or does not start."""
    text = _flat(str(error))
    mode = _AUTHENTICATE.format(mode=os.environ.get("RAY_AUTH_MODE") or "not set")
    if refused:
        return UserError(ExitCode.RAY_UNREACHABLE, f"Ray: {text.partition('. ')[0].rstrip('.')}: {mode}")
    if versions := re.findall(r"(?:Ray|Python): (\S+)", text) if text.startswith("Version mismatch") else []:
        theirs, ours = versions[:2], versions[2:4]
        line = "the cluster runs Ray {} on Python {}, and this process Ray {} on Python {}".format(*theirs, *ours)
        return UserError(ExitCode.RAY_MISMATCH, f"{line}: {_REMEDIES[ExitCode.RAY_MISMATCH]}")
    if text.startswith("Failed to connect to Ray cluster at "):
        # `check_ray_address` has found that something answers there. Ray writes on stderr why it is sent away.
        what = f"Ray: {text.rstrip('.')}, though something answers there"
        return UserError(
            ExitCode.RAY_UNREACHABLE,
            f"{what}: name the head's own port (6379 unless chosen), not the dashboard's; {mode}",
        )
    lost = isinstance(error, ConnectionError)
    return _told(ExitCode.RAY_UNREACHABLE if lost else ExitCode.RAY_START, error, foreign=True)


def _told(code: ExitCode, error: BaseException, foreign: bool = False) -> UserError:
    if code == ExitCode.INTERRUPTED:
        return UserError(code, "interrupted")
    # A config's problems come one a line, and stay so.
    lines = str(error).splitlines() if code == ExitCode.CONFIG else [str(error)]
    line = "\n".join(filter(None, map(_flat, lines))) or type(error).__name__
    if foreign and code in _REMEDIES:
        about = "Ray: " if code in (ExitCode.RAY_START, ExitCode.RAY_UNREACHABLE) else ""
        line = f"{about}{line.rstrip('.')}: {_REMEDIES[code]}"
    own_code_raised = type(error).__name__ == "PluginError" and error.__cause__ is not None
    return UserError(code, line, has_details=own_code_raised)


def _of_the_disk(number: int | None, error: BaseException) -> UserError:
    name = getattr(error, "filename", None)
    where = str(name) if name else "a file of the run"
    if number in _FULL:
        return UserError(
            ExitCode.DISK_FULL, f"the disk is full, writing {where}: free some space; what was written before it stands"
        )
    reason = getattr(error, "strerror", None) or _flat(str(error))
    return UserError(
        ExitCode.PERMISSION, f"{where}: {reason}: name a place where you may write, or change its permissions"
    )


def _frames(error: BaseException) -> Iterator[FrameType]:
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _flat(text: str) -> str:
    # Ray colours its messages, whoever they are for.
    line = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 4]} ..."
