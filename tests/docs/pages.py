"""Pages of the documentation as their tests read them: the blocks of code, and what is said of each.

A block after a paragraph that ends in the name of a file and a colon is the content of that file. Any other block that
holds commands (``console``, ``sh``, ``python``) is run as written. On the lines before its fence a comment may say
otherwise::

    <!-- not run: it takes 138 s -->         not run; on a page under docs/ the text beside it says "not run" as well
    <!-- output not compared: reason -->     run, but what it printed differs from the page
    <!-- before: shell commands -->          run first; what is not for readers, such as a port to be taken

and anywhere on a page::

    <!-- needs: runs/wordle-1 -->            a small trained run is there already
    <!-- tested by: test_own_parts.py -->    another test runs the page

In a ``console`` block commands stand after ``$``, and what they print without; in ``sh`` every line is a command. A
line that ends in a backslash goes on. ``...`` stands for lines, or within a line for text, that are left out. A command
ends with status 0, unless its status is shown by an ``echo $?`` after it or what it prints ends with a line of
``isogon: ...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))

RUN = {"console": "console", "sh": "sh", "bash": "sh", "python": "python"}
"""Languages of blocks that are run, and how."""
NOT_RUN = {"text", "yaml", "json", "mermaid"}

_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--\s*(not run|output not compared|before):\s*(.*?)\s*-->", re.DOTALL)
_FILE = re.compile(r"`([\w./-]+\.\w+)`:$")
_NUMBER = re.compile(r"[-+−]?\d(?:[\d,.:]*\d)?")


@dataclass(frozen=True)
class Command:
    """One command, and the lines that the page says it prints."""

    text: str
    printed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: of its fence, from 1.
        language: after the fence; empty for none.
        text: between the fences.
        marks: the comments before it, by their word.
        file: whose content it is; empty if of none.
        beside: the paragraphs before and after it, where readers see whether it is run.
    """

    line: int
    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)
    beside: str = ""
    file: str = ""

    @property
    def runs(self) -> bool:
        """Whether its commands are run."""
        return self.language in RUN and not self.file and "not run" not in self.marks

    def commands(self) -> list[Command]:
        """What is to be run, in order."""
        kind = RUN[self.language]
        if kind == "python":
            return [Command(f"python - <<'END_OF_BLOCK'\n{self.text}END_OF_BLOCK")]
        found: list[tuple[str, list[str]]] = []
        open_command = False
        for line in self.text.splitlines():
            if open_command:
                found[-1] = (f"{found[-1][0]}\n{line}", [])
            elif kind == "sh":
                if not line.strip() or line.lstrip().startswith("#"):
                    continue
                found.append((line, []))
            elif line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            elif found:
                found[-1][1].append(line)
            open_command = found[-1][0].endswith("\\") if found else False
        return [Command(text, tuple(line for line in printed if line.strip())) for text, printed in found]


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        language = match[1]
        if page == README and not language and re.match(r"(\$|make|isogon) ", match[2]):
            language = "console" if match[2].startswith("$") else "sh"
        above = before.rstrip("\n").split("\n\n")[-1]
        below = text[match.end() :].lstrip("\n").split("\n\n")[0]
        marks = {mark[1]: mark[2] for mark in _COMMENT.finditer(above)}
        file = _FILE.search(_COMMENT.sub("", above).rstrip())
        beside = _COMMENT.sub("", f"{above}\n{below}")
        found.append(Block(before.count("\n") + 1, language, match[2], marks, beside, file[1] if file else ""))
    return found


def needs_of(page: Path) -> list[str]:
    """Which small trained runs the page takes for granted."""
    return [run for found in re.findall(r"<!-- needs: (.*?) -->", page.read_text("utf-8")) for run in found.split()]


def run_by(page: Path) -> str:
    """The file of the test that runs the page, where it is not the common one; empty otherwise."""
    found = re.search(r"<!-- tested by: (\S+) -->", page.read_text("utf-8"))
    return found[1] if found else ""


def matches(shown: str, printed: str) -> bool:
    """Whether a line was printed as the page shows it. Numbers and widths of gaps may differ, words may not."""
    pattern = ""
    for part in re.split(r"(\.\.\.|\s+|[-+−]?\d(?:[\d,.:]*\d)?)", shown.strip()):
        if part == "...":
            pattern += ".*"
        elif part.isspace():
            pattern += r"\s+"
        elif _NUMBER.fullmatch(part):
            pattern += _NUMBER.pattern
        else:
            pattern += re.escape(part)
    return re.fullmatch(pattern, printed.strip()) is not None


def missing_line(shown: tuple[str, ...], printed: list[str]) -> str | None:
    """The first line of the page that was not printed, in this order; None where all were."""
    rest: Iterator[str] = iter(printed)
    for line in shown:
        if line.strip() != "..." and not any(matches(line, other) for other in rest):
            return line
    return None
