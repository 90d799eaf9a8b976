"""What this machine has and this process may use. Each reading is None where the system does not tell."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def describe_machine() -> str:
    """Processor, the cores that this process may use, memory and system in one line, as far as they can be told."""
    cores = usable_cores()
    parts = [cpu_model(), f"{cores} core{'' if cores == 1 else 's'}"]
    if (memory := total_memory()) is not None:
        parts.append(f"{memory / 2**30:.0f} GiB")
    return ", ".join([*filter(None, parts), f"{platform.system()} {platform.machine()}"])


def cpu_model() -> str:
    """The processor, in its maker's words."""
    found = re.search(r"^model name\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on. A container's share of them is in `cpu_quota`."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(cgroup: Path = _CGROUP) -> float | None:
    """Cores' worth of time that a container gives its processes together."""
    found = re.match(r"(\d+) (\d+)", _text(cgroup / "cpu.max"))
    return int(found[1]) / int(found[2]) if found else None


def total_memory() -> int | None:
    """Bytes of the machine, whatever a container's limit."""
    return _pages("SC_PHYS_PAGES")


def free_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int | None:
    """Bytes that can be had without swapping: the machine's, or what a container's limit leaves."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(meminfo), re.MULTILINE)
    machine = int(found[1]) * 1024 if found else _pages("SC_AVPHYS_PAGES")
    limit, used = _text(cgroup / "memory.max").strip(), _text(cgroup / "memory.current").strip()
    if limit.isdecimal() and used.isdecimal():
        left = max(int(limit) - int(used), 0)
        return left if machine is None else min(machine, left)
    return machine


def _pages(kind: str) -> int | None:
    try:
        return os.sysconf(kind) * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
