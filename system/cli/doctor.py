"""``isogon doctor``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .endings import Stopped

if TYPE_CHECKING:
    from ..operations import Fact

_LABELS = {
    "cpu": "processor",
    "torch_threads": "torch threads",
    "kernel_backend_cpu": "kernels, CPU",
    "kernel_backend_cuda": "kernels, CUDA",
    "ray_address": "cluster",
    "ray_auth_mode": "authentication",
    "free_memory_bytes": "free memory",
    "free_disk_bytes": "free disk",
    "free_shared_memory_bytes": "shared memory",
}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on stdout.")] = False,
) -> None:
    """Tell what this machine and installation have, what is missing and how to get it, and how fast they are.

    Takes about ten seconds. The exit code is 0 where everything that is needed is there, and 24 where it is not.

    [bold]Examples[/bold]

      isogon doctor
      isogon doctor --json
    """
    try:
        _examine(as_json)
    except BaseException as error:
        raise Stopped(error) from error


def _examine(as_json: bool) -> None:
    from ..errors import ExitCode, UserError
    from ..operations import examine

    facts = examine(Path.cwd())
    missing = [fact for fact in facts if fact.status == "missing"]
    if not as_json:
        _print_facts(facts)
    # Without its parts there is nothing to time.
    speed = None if any(fact.section == "versions" for fact in missing) else _time_machine(quiet=as_json)
    if as_json:
        print(json.dumps({"ready": not missing, "facts": [asdict(fact) for fact in facts], "speed": speed}))
    if missing:
        told = "; ".join(f"{_label(fact)}: {fact.text}: {fact.remedy}" for fact in missing)
        raise UserError(ExitCode.NOT_READY, f"not ready: {told}")
    if not as_json:
        print("everything that is needed is there")


def _time_machine(quiet: bool) -> dict[str, Any]:
    from ..operations.speed import time_machine

    speed = time_machine()
    if not quiet:
        print(
            f"\nthe wordle preset on {speed.threads} thread:\n"
            f"  learner  {speed.updates_per_second:,.0f} updates/s\n"
            f"  actor    {speed.boards_per_second:,.0f} boards/s\n"
        )
    return asdict(speed)


def _print_facts(facts: Sequence[Fact]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    marks = {"ok": "", "note": "note: ", "missing": "MISSING: "}
    styles = {"ok": "", "note": "yellow", "missing": "red"}
    section = ""
    for fact in facts:
        if fact.section != section:
            section = fact.section
            table.add_row(Text(section, style="underline"), "")
        text = Text(marks[fact.status], style=styles[fact.status]).append(fact.text, style="default")
        if fact.remedy:
            text.append(f"\n-> {fact.remedy}")
        table.add_row(f"  {_label(fact)}", text)
    Console(highlight=False).print(table)


def _label(fact: Fact) -> str:
    return _LABELS.get(fact.name, fact.name)
