"""What the documentation points at is there: pages, images, headings, keys of the config."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from isogon.system.config.keys import all_keys
from isogon.system.config.run import RunConfig
from isogon.system.errors import ExitCode
from isogon.system.federation.config import FederationConfig

from .pages import PAGES, README, ROOT, blocks_of

INDEX = ROOT / "docs" / "README.md"
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
_FENCED = re.compile(r"^```.*?^```\s*$", re.MULTILINE | re.DOTALL)
_SET = re.compile(r"--set\s+'?([a-z_.]+)=")
_QUOTED = re.compile(r"`([a-z_]+(?:\.[a-z_]+)+)(?:=[^`]*)?`")

_FREE = ("environment.kwargs.", "simulation.speeds.", "simulation.strategies.")
"""Beginnings of keys that are an environment's own."""


def names(path: Path) -> str:
    return path.name


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    text = _FENCED.sub("", page.read_text("utf-8"))
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


KEYS = {*all_keys(RunConfig), *all_keys(FederationConfig)}
SECTIONS = {key.partition(".")[0] for key in KEYS if "." in key}


@pytest.mark.parametrize("page", [README, *PAGES], ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    for match in _LINK.finditer(_FENCED.sub("", page.read_text("utf-8"))):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} points at {target}, which is not there"
        assert there.is_relative_to(ROOT.resolve()), f"{page.name} points at {target}, out of the repository"
        if anchor:
            assert anchor in headings(there), f"{page.name} points at {target}: {there.name} has no such heading"


def test_every_page_is_in_the_index() -> None:
    listed = {match[1] for match in _LINK.finditer(INDEX.read_text("utf-8"))}
    assert {page.name for page in PAGES} - {INDEX.name} <= listed


def test_every_image_is_shown_and_small() -> None:
    text = "".join(page.read_text("utf-8") for page in [README, *PAGES])
    for image in (ROOT / "docs" / "images").iterdir():
        assert f"images/{image.name}" in text, f"{image.name} is shown nowhere"
        assert image.stat().st_size < 200_000, f"{image.name} is larger than 200 kB"


@pytest.mark.parametrize("page", [README, *PAGES], ids=names)
def test_keys_of_the_config_are_there(page: Path) -> None:
    text = page.read_text("utf-8")
    wrong_on_purpose = {
        key for block in blocks_of(page) for key in re.findall(r"unknown key ([a-z_.]+) in", block.text)
    }
    for key in set(_SET.findall(text)) - wrong_on_purpose - {"key"}:
        assert key in KEYS or key.startswith(_FREE), f"{page.name} sets {key}, which is no key of the config"
    for key in set(_QUOTED.findall(_FENCED.sub("", text))) - wrong_on_purpose:
        if key.partition(".")[0] in SECTIONS and not key.endswith((".py", ".md", ".yaml", ".json", ".jsonl")):
            assert key in KEYS or key.startswith(_FREE), f"{page.name} names {key}, which is no key of the config"


def test_every_exit_code_is_explained() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.*?) \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE))
    assert {int(code) for code in rows} == {0} | {int(code) for code in ExitCode}
