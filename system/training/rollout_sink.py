"""Where an actor pool's results go: rollouts into replay, evaluations to whoever asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...actors.columns import Columns, check_columns
from ...actors.work import Scores, WorkResult
from ...learners.encodings.spec import EnvironmentSpec
from ...learners.replay.intake import RolloutIntake
from ...schedulers.events import Arrived


class RolloutSink:
    """A `Sink` before a replay. Results are admitted at once: a rollout changes no weights.

    Args:
        spec: of the environment that is played.
        make_intake: of a player: what makes transitions of its rollouts and puts them into the replay.

    Attributes:
        env_steps: valid steps committed.
        finished: (episodes, summed return, summed length) since they were last taken.
        evaluations: (version, scores) that nobody has taken yet.
    """

    def __init__(
        self,
        spec: EnvironmentSpec,
        make_intake: Callable[[], RolloutIntake],
    ) -> None:
        self._spec = spec
        self._make_intake = make_intake
        self._intakes: dict[str, RolloutIntake] = {}
        self._follows: dict[str, tuple[int, int]] = {}
        self.env_steps = 0
        self.finished = np.zeros(3)
        self.evaluations: list[tuple[int, Scores]] = []

    def admit(self, result: WorkResult, arrived: Arrived) -> WorkResult:
        """The result itself. Raises ValueError where it is not whole; see `check_columns`."""
        if result.kind == "rollout":
            check_columns(result.payload, self._spec)
        elif not np.isfinite(result.payload["return"]).all():
            raise ValueError("an evaluation's returns are not finite")
        return result

    def discard(self, result: WorkResult) -> None:
        """Nothing is kept of it here."""

    def commit(self, entries: Sequence[tuple[WorkResult, float]]) -> None:
        """Apply results; the weight says nothing for rollouts, and the learner numbers the versions."""
        for result, _ in entries:
            if result.kind == "evaluate":
                self.evaluations.append((result.version, result.payload))
            else:
                self._insert(result)

    def insert_recorded(self, columns: Columns) -> None:
        """Put an offline data set into replay: it counts neither as environment steps nor as episodes."""
        self._make_intake().add(columns, continues=False)

    def take_finished(self) -> tuple[int, float, float]:
        """(episodes, summed return, summed length) of the episodes that ended since the last call."""
        taken, self.finished = self.finished, np.zeros(3)
        return int(taken[0]), float(taken[1]), float(taken[2])

    def forget_unfinished(self) -> None:
        """Drop the beginnings of episodes whose ends will not come: workers begin anew."""
        self._intakes.clear()
        self._follows.clear()

    def _insert(self, result: WorkResult) -> None:
        worker = result.token.worker
        intake = self._intakes.setdefault(worker, self._make_intake())
        # A piece may have been lost between two others, or the worker replaced: its episodes then do not go on.
        continues = self._follows.get(worker) == (result.stream, result.first_step)
        intake.add(result.payload, continues=continues)
        self._follows[worker] = (result.stream, result.first_step + result.payload["action"].shape[0])
        self.env_steps += result.samples
        self.finished += [result.stats[name] for name in ("episodes", "return_sum", "length_sum")]
