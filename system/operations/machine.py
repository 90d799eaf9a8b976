"""What this machine has and this process may use. Each reading is None where the system does not tell."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


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


def free_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int | None:
    """Bytes that can be had without swapping: the machine's, or what a container's limit leaves."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(meminfo), re.MULTILINE)
    machine = int(found[1]) * 1024 if found else _free_pages()
    limit, used = _text(cgroup / "memory.max").strip(), _text(cgroup / "memory.current").strip()
    if limit.isdecimal() and used.isdecimal():
        left = max(int(limit) - int(used), 0)
        return left if machine is None else min(machine, left)
    return machine


def _free_pages() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
