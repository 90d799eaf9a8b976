"""A run as it is on disk: its config, and the policy of its newest whole checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ..learners.policy import QPolicy
from .builder import build_learner, build_spec
from .config.problems import Origin, one_line
from .config.run import RunConfig
from .runs.checkpoints import CheckpointRef
from .runs.directory import LAST, RunDirectory
from .runs.errors import RunDirectoryDamaged
from .training.attempt import check_environment, check_range_kept
from .training.rank import load_learner


@dataclass(frozen=True)
class SavedPolicy:
    """The acting half of a trained learner, on the CPU, and the checkpoint that it came from."""

    policy: QPolicy
    checkpoint: CheckpointRef


@dataclass(frozen=True)
class SavedRun:
    """A run directory with its config read. `open` gives one."""

    directory: RunDirectory
    config: RunConfig

    @classmethod
    def open(cls, path: Path) -> SavedRun:
        """The run at ``path``, which may still be going on.

        Raises:
            RunDirectoryMissing: there is no run directory, or it is a federation's.
            RunDirectoryDamaged: a folder is missing, or its config is none that this version knows.
        """
        directory = RunDirectory.open(path)
        file = path / "config.yaml"
        directory.check_trained()
        try:
            return cls(directory, RunConfig.model_validate(directory.read_config()))
        except ValidationError as error:
            problem = one_line(RunConfig, error.errors()[0], Origin(str(file), {}))
            raise RunDirectoryDamaged(f"{problem}: restore the config that the run was started with") from error

    def load_policy(self, say: Callable[[str], None], which: str = LAST) -> SavedPolicy:
        """The policy of a checkpoint.

        Args:
            say: is told in one line of each checkpoint that is passed over.
            which: ``last``, ``best`` or a name; see `RunDirectory.find_checkpoint`.

        Raises:
            RunDirectoryMissing: there is no such checkpoint, or no whole one yet.
            CheckpointInvalid: the checkpoint is damaged, or of another network or another word list.
        """
        checkpoint = self.directory.find_checkpoint(which, say)
        spec = build_spec(self.config)
        check_environment(checkpoint, spec)
        check_range_kept(checkpoint, self.config.value)
        learner = build_learner(self.config.model_copy(update={"device": "cpu"}), spec)
        load_learner(learner, checkpoint.parts)
        return SavedPolicy(learner.policy(), checkpoint.ref)
