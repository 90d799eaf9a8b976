"""Which runs a comparison needs, given those that are done: pure functions of settings and results.

For each arm: the regulariser's weight is tuned on the validation words at the first learning rate, then the learning
rate at the best weight; then the final runs follow, one for each seed. Where their CPU time differs from the reference
loss's, they are made once more with as many updates as fit into its time. Everything follows from the results, so a
comparison that was killed goes on by asking again.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from ...learners.schedules import Schedule
from ..config.run import RunConfig
from .config import REFERENCE, CompareConfig, Loss, Mode, TableName


@dataclass(frozen=True)
class Arm:
    """What is tuned and compared as one: a loss, how it learns, and in which table it stands."""

    table: TableName
    mode: Mode
    loss: Loss


@dataclass(frozen=True)
class Trial:
    """One run: an arm with everything that may differ between its runs."""

    arm: Arm
    cql_weight: float
    learning_rate: float
    updates: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder: no two trials of a comparison have the same."""
        arm = self.arm
        return (
            f"{arm.table}-{arm.mode}-{arm.loss}-cql{self.cql_weight:g}-lr{self.learning_rate:g}"
            f"-updates{self.updates}-seed{self.seed}"
        )


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        validation_return: mean over the validation words, by which is tuned.
        never_seen_returns: of each never-seen word.
        cpu_seconds: of the process while it trained: learning, playing, evaluating.
        seconds: of training by the clock.
        total_cpu_seconds: of the process for the whole run.
        env_steps: that it played itself.
    """

    validation_return: float
    never_seen_returns: tuple[float, ...]
    cpu_seconds: float
    seconds: float
    total_cpu_seconds: float
    env_steps: int


@dataclass(frozen=True)
class Failed:
    """A run did not come to its end. ``reason`` is one line."""

    reason: str


Results = Mapping[Trial, Result]


@dataclass(frozen=True)
class ArmPlan:
    """How far an arm has come.

    Attributes:
        tuning: the tuning runs known so far.
        tuned: the tuning run whose weight and learning rate are taken; None while it is not known, or where all failed.
        steps: the final runs at equal steps; empty before.
        time: the final runs at equal time, the same ones where their time is equal; None while it is not known.
        complete: whether nothing more will follow.
    """

    tuning: tuple[Trial, ...]
    tuned: Trial | None = None
    steps: tuple[Trial, ...] = ()
    time: tuple[Trial, ...] | None = None
    complete: bool = False

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All runs known so far, each once, in order."""
        return tuple(dict.fromkeys((*self.tuning, *self.steps, *(self.time or ()))))


def arms_of(config: CompareConfig) -> list[Arm]:
    """All arms, table by table, mode by mode."""
    return [
        Arm(name, mode, loss) for name, table in config.tables.items() for mode in table.modes for loss in table.losses
    ]


def tries(config: CompareConfig) -> int:
    """Tuning runs of every arm."""
    return len(config.offline_weights) + len(config.learning_rates) - 1


def plan_arm(config: CompareConfig, arm: Arm, results: Results, failed: Collection[Trial] = ()) -> ArmPlan:
    """What is known of an arm's runs by now."""
    first_rate, *other_rates = config.learning_rates
    updates = config.tables[arm.table].updates
    tuning = tuple(Trial(arm, weight, first_rate, updates, config.tuning_seed) for weight in config.weights(arm.mode))
    if not _ended(tuning, results, failed):
        return ArmPlan(tuning)
    best = _best(tuning, results)
    if best is None:
        return ArmPlan(tuning, complete=True)
    tuning += tuple(replace(best, learning_rate=rate) for rate in other_rates)
    if not _ended(tuning, results, failed):
        return ArmPlan(tuning)
    best = _best(tuning, results)
    assert best is not None, "a run that was done is done no more"
    steps = tuple(replace(best, seed=seed) for seed in config.seeds)
    if not _ended(steps, results, failed):
        return ArmPlan(tuning, best, steps)
    return _with_equal_time(config, ArmPlan(tuning, best, steps), results, failed)


def wanted_trials(config: CompareConfig, results: Results, failed: Collection[Trial] = ()) -> list[Trial]:
    """The runs that can be made now: each one that is neither done nor failed."""
    known = [trial for arm in arms_of(config) for trial in plan_arm(config, arm, results, failed).trials]
    return [trial for trial in known if trial not in results and trial not in failed]


def expected_trials(config: CompareConfig, results: Results, failed: Collection[Trial] = ()) -> int:
    """How many runs there will be; those at equal time are counted when it is known that they are needed."""
    total = 0
    for arm in arms_of(config):
        plan = plan_arm(config, arm, results, failed)
        least = 0 if plan.complete else tries(config) + len(config.seeds)
        total += max(least, len(plan.trials))
    return total


def trial_config(config: CompareConfig, trial: Trial) -> RunConfig:
    """The config of a run: the table's, with what the trial says put over it.

    The learning rate keeps the shape that the base's schedule has, end included. Offline alone the regulariser's
    weight stays; before own games it falls to 0.
    """
    base, arm = config.tables[trial.arm.table].base, trial.arm
    assert base.offline is not None
    rate = base.learner.learning_rate
    end = None if rate.end is None else rate.end * trial.learning_rate / rate.start
    weight = Schedule(start=trial.cql_weight)
    if arm.mode == "online" and trial.cql_weight > 0:
        weight = Schedule(kind="linear", start=trial.cql_weight, end=0.0, until=base.offline.budget_share)
    changes = {
        "seed": trial.seed,
        "budget": base.budget.model_copy(update={"updates": trial.updates}),
        "value": base.value.model_copy(update={"kind": arm.loss}),
        "replay": base.replay.model_copy(update={"returns": "n_step" if arm.loss == "c51" else "monte_carlo"}),
        "offline": base.offline.model_copy(update={"budget_share": 1.0} if arm.mode == "offline" else {}),
        "learner": base.learner.model_copy(
            update={
                "cql_weight": weight,
                "learning_rate": rate.model_copy(update={"start": trial.learning_rate, "end": end}),
            }
        ),
    }
    # Copies are not validated; what comes out is.
    return RunConfig.model_validate(base.model_copy(update=changes).model_dump())


def edges(config: CompareConfig, tuned: Trial) -> list[str]:
    """What the tuned values are at the edge of: a better one may lie beyond. A weight of 0 is no edge."""
    found = []
    for what, value, tried in (
        ("CQL weight", tuned.cql_weight, config.weights(tuned.arm.mode)),
        ("learning rate", tuned.learning_rate, config.learning_rates),
    ):
        if len(tried) > 1 and value == max(tried):
            found.append(f"{what} {value:g} is the largest tried")
        elif len(tried) > 1 and value == min(tried) and value > 0:
            found.append(f"{what} {value:g} is the smallest tried")
    return found


def cpu_seconds(trials: Collection[Trial], results: Results) -> float | None:
    """The median CPU time of those that are done, None where none is."""
    done = [results[trial].cpu_seconds for trial in trials if trial in results]
    return statistics.median(done) if done else None


def _with_equal_time(config: CompareConfig, plan: ArmPlan, results: Results, failed: Collection[Trial]) -> ArmPlan:
    assert plan.tuned is not None
    arm = plan.tuned.arm
    if arm.loss == REFERENCE:
        return replace(plan, time=plan.steps, complete=True)
    reference = plan_arm(config, replace(arm, loss=REFERENCE), results, failed)
    if not reference.complete:
        return plan
    allowed, used = cpu_seconds(reference.steps, results), cpu_seconds(plan.steps, results)
    if not allowed or not used or abs(used / allowed - 1) <= config.time_tolerance:
        return replace(plan, time=plan.steps, complete=True)
    updates = max(1, round(plan.tuned.updates * allowed / used))
    time = tuple(replace(trial, updates=updates) for trial in plan.steps)
    return replace(plan, time=time, complete=_ended(time, results, failed))


def _ended(trials: Collection[Trial], results: Results, failed: Collection[Trial]) -> bool:
    return all(trial in results or trial in failed for trial in trials)


def _best(trials: Collection[Trial], results: Results) -> Trial | None:
    """The one with the best validation return; of equals the first. None where none is done."""
    done = [trial for trial in trials if trial in results]
    return max(done, key=lambda trial: results[trial].validation_return, default=None)
