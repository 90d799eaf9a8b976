"""The repository's root is the package: the links of ``src/isogon`` and what must not be importable beside them."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("kernels", "schedulers", "learners", "actors", "system")


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py", "py.typed", *FLOORS])
def test_the_package_is_links_to_the_root(name: str) -> None:
    link = ROOT / "src" / "isogon" / name
    assert link.is_symlink(), f"{link} is a copy: edits of {name} would not be seen"
    assert not link.readlink().is_absolute()
    assert link.resolve() == (ROOT / name).resolve()


def test_there_is_nothing_else_in_it() -> None:
    linked = {"__init__.py", "__main__.py", "py.typed", *FLOORS}
    assert {path.name for path in (ROOT / "src" / "isogon").iterdir()} - {"__pycache__"} == linked


@pytest.mark.parametrize("name", FLOORS)
def test_no_folder_is_importable_by_its_bare_name(name: str) -> None:
    program = f"import importlib.util; assert importlib.util.find_spec({name!r}) is None"
    subprocess.run([sys.executable, "-P", "-c", program], check=True, cwd="/")


@pytest.mark.parametrize(
    ("imported", "unwanted"),
    [
        ("isogon", ("torch", "ray", "pydantic")),
        ("isogon.kernels", ("ray", "pydantic", "isogon.learners")),
        ("isogon.schedulers", ("ray", "torch", "isogon.kernels")),
        ("isogon.learners", ("ray", "isogon.actors")),
        ("isogon.actors.pools.in_process", ("ray", "isogon.system")),
        ("isogon.system.api", ("ray", "gymnasium")),
    ],
)
def test_imports_load_no_more_than_they_need(imported: str, unwanted: tuple[str, ...]) -> None:
    program = f"import sys, {imported}; print([name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_source_folder_is_a_package_that_git_knows() -> None:
    folders = {file.parent for floor in FLOORS for file in (ROOT / floor).rglob("*.py")}
    known = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if known.returncode:
        pytest.skip("not a git checkout")
    for folder in folders:
        assert (folder / "__init__.py").relative_to(ROOT).as_posix() in known.stdout.splitlines()


def packages() -> list[str]:
    files = [file for floor in FLOORS for file in sorted((ROOT / floor).rglob("__init__.py"))]
    return [".".join(["isogon", *file.parent.relative_to(ROOT).parts]) for file in files]


@pytest.mark.parametrize("name", packages())
def test_each_package_says_what_it_is_and_what_it_gives(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert "to be written" not in module.__doc__
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), f"{name}.__all__ names {public}, which is not there"


def test_the_root_gives_what_it_names() -> None:
    import isogon

    for public in isogon.__all__:
        assert hasattr(isogon, public)
    with pytest.raises(AttributeError, match="nonsense"):
        isogon.nonsense  # noqa: B018
