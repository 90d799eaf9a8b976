"""The command line as the tests call it: in this process over a fake api, or in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

FAKE = str(Path(__file__).with_name("isogon_with_fake_api.py"))
CONFIG = """
name: pole
environment: {kind: gymnasium, id: CartPole-v1}
value: {kind: hl_gauss, bins: 51, vmin: 0, vmax: 100}
budget: {env_steps: 1000}
"""
PLAIN = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "NO_COLOR", "TERM", "COLUMNS")}


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def line(self, code: int) -> str:
        """The one line on stderr of a command that ended with this code."""
        assert self.code == code, self.err
        assert self.err.startswith("isogon: ")
        assert len(self.err.splitlines()) == 1, self.err
        return self.err.strip()


Isogon = Callable[..., Ended]


def isogon_process(folder: Path, *arguments: str, program: Sequence[str] = (FAKE,), **env: str) -> Ended:
    """The same in a process of its own, or another program."""
    done = subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=folder,
        env=PLAIN | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def make_run(folder: Path) -> Path:
    run = folder / "run"
    for name in ("attempts/1", "checkpoints"):
        (run / name).mkdir(parents=True)
    (run / "config.yaml").write_text(CONFIG)
    return run
