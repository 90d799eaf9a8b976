"""How good the checkpoints of a run are: the validation returns of those that were evaluated, in ``scores.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from .atomic_files import write_atomically
from .checkpoints import CheckpointRef
from .errors import RunDirectoryDamaged

SCORES = "scores.json"


def read_scores(run_dir: Path) -> dict[str, float]:
    """Validation returns by the names of checkpoints, which may be gone.

    Raises:
        RunDirectoryDamaged: the file is not as it was written.
    """
    path = run_dir / SCORES
    try:
        return {str(name): float(score) for name, score in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RunDirectoryDamaged(
            f"{path} cannot be read ({error}): remove it; the run then counts as not evaluated yet"
        ) from error


def add_score(run_dir: Path, ref: CheckpointRef, score: float, there: Iterable[CheckpointRef]) -> None:
    """Add one, whole or not at all, and forget those of checkpoints that are not ``there`` any more."""
    names = {other.name for other in there}
    kept = {name: value for name, value in read_scores(run_dir).items() if name in names}
    write_atomically(run_dir / SCORES, json.dumps({**kept, ref.name: score}, indent=1, allow_nan=False) + "\n")


def best_first(run_dir: Path, refs: Iterable[CheckpointRef]) -> list[CheckpointRef]:
    """Those that were evaluated, best first; equals keep their order."""
    scores = read_scores(run_dir)
    return sorted((ref for ref in refs if ref.name in scores), key=lambda ref: -scores[ref.name])
