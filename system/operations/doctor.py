"""What `isogon doctor` finds out: facts of this installation and machine, and what to do about those that are wrong.

Nothing is changed or started. A part that is missing is a fact, not an error: the rest is still looked at. So this
module needs nothing but Python's own library.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from .. import machine
from ..errors import UserError, check_ray_address

Status = Literal["ok", "note", "missing"]
"""``note``: Isogon works, and something would be better otherwise. ``missing``: it does not work."""

IMPORTS = {
    "torch": "torch",
    "numpy": "numpy",
    "ray": "ray",
    "gymnasium": "gymnasium",
    "scipy": "scipy",
    "safetensors": "safetensors",
    "pydantic": "pydantic",
    "pyyaml": "yaml",
    "filelock": "filelock",
    "prometheus-client": "prometheus_client",
    "rich": "rich",
    "threadpoolctl": "threadpoolctl",
    "typer": "typer",
    "jinja2": "jinja2",
    "markupsafe": "markupsafe",
}
"""Distributions that Isogon needs, and the name that each is imported by."""

_ALWAYS_SHOWN = 4
"""Of these; the others are told of where something is wrong with them."""
_RAY_SECONDS = 3.0
_OBJECT_STORE_BYTES = 256 * 2**20
"""Of the Ray that a run starts; not imported from there, which would need torch."""
_TOKEN = "~/.ray/auth_token"
_GIB = 2**30
_LITTLE_MEMORY = 2 * _GIB
_LITTLE_DISK = _GIB
_NO_DISK = _GIB // 10


@dataclass(frozen=True)
class Fact:
    """One thing that was looked at.

    Attributes:
        section: what it belongs to.
        name: a short name that does not change, with its unit.
        value: for machines: a JSON value, None where it could not be found out.
        text: for people.
        status: whether it is as it should be.
        remedy: what to do where it is not; otherwise empty.
    """

    section: str
    name: str
    value: Any
    text: str
    status: Status = "ok"
    remedy: str = ""


def examine(folder: Path) -> list[Fact]:
    """Everything but the speed, in the order to be shown.

    Args:
        folder: where runs would be kept.
    """
    return [*_versions(), *_devices(), *_kernels(), *_ray(), *_room(folder)]


def _versions() -> list[Fact]:
    facts = [
        Fact("versions", "isogon", _installed("isogon"), _installed("isogon") or "not installed: run from its source"),
        Fact("versions", "python", platform.python_version(), platform.python_version()),
    ]
    allowed = _requirements()
    for number, (distribution, module) in enumerate(IMPORTS.items()):
        fact = _import(distribution, module, allowed.get(distribution, ""))
        if number < _ALWAYS_SHOWN or fact.status != "ok":
            facts.append(fact)
    return facts


def _import(distribution: str, module: str, allowed: str) -> Fact:
    get = f"pip install '{distribution}{allowed}'"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        reason = "not installed" if error.name == module else f"needs {error.name}, which is not installed"
        return Fact("versions", distribution, None, reason, "missing", get)
    except Exception as error:
        # Whatever a broken library raises when it loads, such as OSError for a file of another system, is the finding.
        reason = f"installed, but does not load ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        return Fact(
            "versions", distribution, None, reason, "missing", f"pip install --force-reinstall '{distribution}'"
        )
    version = _installed(distribution) or "unknown"
    if not within(version, allowed):
        return Fact("versions", distribution, version, f"{version}, and {allowed} is needed", "missing", get)
    return Fact("versions", distribution, version, version)


def within(version: str, allowed: str) -> bool:
    """Whether a version is within bounds such as ``>=2.60,<3``; parts that are no numbers do not count."""
    mine = _numbers(version)
    for relation, bound in re.findall(r"(>=|<)([\d.]+)", allowed):
        if mine and (mine >= _numbers(bound)) != (relation == ">="):
            return False
    return True


def _numbers(version: str) -> list[int]:
    release = re.match(r"\d+(\.\d+)*", version)
    return [int(part) for part in release[0].split(".")] if release else []


def _requirements() -> dict[str, str]:
    """Bounds of versions by distribution, as Isogon's own package gives them; none where it is not installed."""
    try:
        lines = metadata.requires("isogon") or []
    except metadata.PackageNotFoundError:
        return {}
    found = (re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*([^;]*)$", line.strip()) for line in lines)
    return {match[1].lower(): match[2].strip() for match in found if match}


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[Fact]:
    cores, quota = machine.usable_cores(), machine.cpu_quota()
    share = "" if quota is None else f", of which a container gives {quota:g}"
    return [
        Fact("devices", "cpu", machine.cpu_model(), machine.cpu_model()),
        Fact("devices", "cores", cores, f"{cores}{share}"),
        *_of_torch(_cuda),
        *_of_torch(_threads),
    ]


def _of_torch(tell: Callable[[Any], Fact]) -> list[Fact]:
    """A fact that torch knows; none where it does not load, which is told elsewhere."""
    try:
        return [tell(importlib.import_module("torch"))]
    except Exception:
        return []


def _cuda(torch: Any) -> Fact:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Fact("devices", "cuda", names, f"{', '.join(names)} (CUDA {torch.version.cuda})")
    built = "" if torch.version.cuda else ", and PyTorch is built without it"
    if Path("/proc/driver/nvidia/version").exists():
        remedy = "install a PyTorch that is built with CUDA" if built else "check the driver with nvidia-smi"
        return Fact("devices", "cuda", [], f"cannot be used, though there is an NVIDIA driver{built}", "note", remedy)
    return Fact("devices", "cuda", [], f"none{built}: learning runs on the CPU")


def _threads(torch: Any) -> Fact:
    count = torch.get_num_threads()
    return Fact("devices", "torch_threads", count, f"{count}, of which a run uses torch_threads (1 by default)")


def _kernels() -> list[Fact]:
    try:
        from ...kernels import backends
    except ImportError:
        # torch is missing, and has been told of.
        return []
    told = backends.describe()
    facts = []
    for device, name in (("cpu", "native"), ("cuda", "triton")):
        if device in told:
            missing = backends.why_not(name)
            if missing is None:
                facts.append(Fact("kernels", f"kernel_backend_{device}", name, told[device]))
            else:
                facts.append(Fact("kernels", f"kernel_backend_{device}", "torch", told[device], "note", missing))
    return facts


def _ray() -> list[Fact]:
    return [*_cluster(), _authentication()]


def _authentication() -> Fact:
    """A cluster sends away whoever has another mode or token than its head: the commonest way not to get in."""
    mode = os.environ.get("RAY_AUTH_MODE")
    token = "RAY_AUTH_TOKEN" in os.environ or Path(os.environ.get("RAY_AUTH_TOKEN_PATH", _TOKEN)).expanduser().is_file()
    has = f"a token is {'' if token else 'not '}there"
    name = "ray_auth_mode"
    if mode == "token" and not token:
        remedy = f"copy the head's {_TOKEN} here, or make one with: ray get-auth-token --generate"
        return Fact("ray", name, mode, f"RAY_AUTH_MODE is token, and {has}", "missing", remedy)
    if mode is None and os.environ.get("RAY_ADDRESS"):
        remedy = "set RAY_AUTH_MODE to token or disabled, the same for the head, the nodes and here"
        return Fact("ray", name, mode, f"RAY_AUTH_MODE is not set, and {has}: Ray guesses", "note", remedy)
    return Fact("ray", name, mode, f"RAY_AUTH_MODE is {mode or 'not set'}, {has}")


def _cluster() -> list[Fact]:
    address = os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return [Fact("ray", "ray_address", None, "RAY_ADDRESS is not set: runs start a Ray of this machine")]
    if address == "auto":
        return [Fact("ray", "ray_address", address, "auto: runs look for a Ray on this machine; not tried")]
    try:
        check_ray_address(address, _RAY_SECONDS)
    except UserError as error:
        remedy = "start that cluster, or unset RAY_ADDRESS"
        return [Fact("ray", "ray_address", address, error.line.partition(": start a cluster")[0], "missing", remedy)]
    return [Fact("ray", "ray_address", address, f"{address} answers")]


def _room(folder: Path) -> list[Fact]:
    return [_memory(machine.free_memory()), _disk(folder), *_shared_memory(Path("/dev/shm"))]


def _memory(free: int | None) -> Fact:
    if free is None:
        return Fact("memory and disk", "free_memory_bytes", None, "unknown: this system does not tell")
    if free < _LITTLE_MEMORY:
        remedy = "close other programs, or set replay.capacity and actors.workers lower"
        return Fact("memory and disk", "free_memory_bytes", free, shown_bytes(free), "note", remedy)
    return Fact("memory and disk", "free_memory_bytes", free, shown_bytes(free))


def _disk(folder: Path) -> Fact:
    free = shutil.disk_usage(folder).free
    text = f"{shown_bytes(free)} in {folder}"
    if free < _LITTLE_DISK:
        status: Status = "missing" if free < _NO_DISK else "note"
        return Fact(
            "memory and disk", "free_disk_bytes", free, text, status, "free some space, or work in another folder"
        )
    return Fact("memory and disk", "free_disk_bytes", free, text)


def _shared_memory(folder: Path) -> list[Fact]:
    """Ray keeps its objects there; where there is too little it uses the disk."""
    if not folder.is_dir():
        return []
    usage = shutil.disk_usage(folder)
    text = f"{shown_bytes(usage.free)} free of {shown_bytes(usage.total)} in {folder}"
    if usage.free < _OBJECT_STORE_BYTES:
        remedy = (
            f"Ray wants {shown_bytes(_OBJECT_STORE_BYTES)} and goes to disk: start the container with --shm-size=1g"
        )
        return [Fact("memory and disk", "free_shared_memory_bytes", usage.free, text, "note", remedy)]
    return [Fact("memory and disk", "free_shared_memory_bytes", usage.free, text)]


def shown_bytes(amount: int) -> str:
    """Bytes in GiB or MiB."""
    return f"{amount / _GIB:.1f} GiB" if amount >= _GIB else f"{amount / 2**20:.0f} MiB"
