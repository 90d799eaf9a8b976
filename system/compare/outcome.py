"""From results to figures: the rows of the tables, as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..evaluation import Opponents, mean_interval
from .config import REFERENCE, CompareConfig, TableName
from .plan import Arm, ArmPlan, Failed, Results, Trial, arms_of, cpu_seconds, edges, plan_arm
from .statistics import difference

_UNSOLVED = -6.0


def build_outcome(
    config: CompareConfig, results: Results, failed: Mapping[Trial, Failed], opponents: Opponents
) -> dict[str, Any]:
    """All that a comparison came to.

    Returns:
        ``words``, how many never-seen words were played, and ``seeds``; ``players``, those without learning;
        ``tables``, a list of ``table, updates, rows``; ``tuning``, all tuning runs with their validation return;
        ``failed``, runs with the reason; ``runs`` and ``cpu_seconds`` of all runs together.

        A row has ``mode, loss, budget`` (``steps`` or ``time``), ``updates``, ``env_steps``, ``cpu_seconds`` (median of
        the seeds' training), ``seeds``, ``return``, ``solved``, ``gain`` over perfect filtering with ``gain_low,
        gain_high``, ``against`` the reference loss with ``against_low, against_high`` and ``verdict`` (all None for the
        reference itself), ``cql_weight``, ``learning_rate``, ``edges``, ``same_runs`` (whether a row at equal time is
        of the runs at equal steps), ``return_by_seed`` and ``run_dirs``.
    """
    filtering = opponents.filtering.mean(axis=1)
    plans = {arm: plan_arm(config, arm, results, failed) for arm in arms_of(config)}
    return {
        "words": len(filtering),
        "seeds": len(config.seeds),
        "players": [
            _player("data policy", opponents.data_policy.mean(axis=1), filtering, opponents.data_policy),
            _player("perfect filtering", filtering, filtering, opponents.filtering),
            _player("entropy search", opponents.entropy_search, filtering, opponents.entropy_search),
        ],
        "tables": [_table(config, name, plans, results, filtering) for name in config.tables],
        "tuning": [_tuning_run(trial, results) for plan in plans.values() for trial in plan.tuning],
        "failed": {trial.name: failure.reason for trial, failure in failed.items()},
        "runs": len(results),
        "cpu_seconds": round(sum(result.total_cpu_seconds for result in results.values()), 1),
    }


def _player(name: str, returns: np.ndarray, filtering: np.ndarray, games: np.ndarray) -> dict[str, Any]:
    return {"player": name, "return": float(returns.mean()), "solved": _solved(games), **_gain(returns, filtering)}


def _table(
    config: CompareConfig,
    name: TableName,
    plans: Mapping[Arm, ArmPlan],
    results: Results,
    filtering: np.ndarray,
) -> dict[str, Any]:
    rows = []
    for budget in ("steps", "time"):
        for arm, plan in plans.items():
            trials = plan.steps if budget == "steps" else plan.time
            if arm.table != name or plan.tuned is None or not trials:
                continue
            reference = plans[Arm(arm.table, arm.mode, REFERENCE)].steps
            if row := _row(arm, trials, reference, results, filtering):
                tuned = {"edges": edges(config, plan.tuned), "same_runs": budget == "time" and trials == plan.steps}
                rows.append({"budget": budget, **row, **tuned})
    return {"table": name, "updates": config.tables[name].updates, "rows": rows}


def _row(
    arm: Arm, trials: Sequence[Trial], reference: Sequence[Trial], results: Results, filtering: np.ndarray
) -> dict[str, Any] | None:
    done = [trial for trial in trials if trial in results]
    if not done:
        return None
    returns = _returns(done, results)
    return {
        "mode": arm.mode,
        "loss": arm.loss,
        "updates": done[0].updates,
        "env_steps": int(np.median([results[trial].env_steps for trial in done])),
        "cpu_seconds": cpu_seconds(done, results),
        "seeds": [trial.seed for trial in done],
        "return": float(returns.mean()),
        "solved": _solved(returns),
        **_gain(returns.mean(axis=0), filtering),
        **_against(arm, done, [trial for trial in reference if trial in results], results),
        "cql_weight": done[0].cql_weight,
        "learning_rate": done[0].learning_rate,
        "return_by_seed": [float(mean) for mean in returns.mean(axis=1)],
        "run_dirs": [f"runs/{trial.name}" for trial in done],
    }


def _against(
    arm: Arm, done: Sequence[Trial], reference: Sequence[Trial], results: Results
) -> dict[str, float | str | None]:
    theirs = {trial.seed: trial for trial in reference}
    pairs = [(trial, theirs[trial.seed]) for trial in done if trial.seed in theirs]
    if arm.loss == REFERENCE or len(pairs) < 2:
        return dict.fromkeys(("against", "against_low", "against_high", "verdict"))
    found = difference(_returns([ours for ours, _ in pairs], results), _returns([other for _, other in pairs], results))
    return {
        "against": found.mean,
        "against_low": found.low,
        "against_high": found.high,
        "verdict": found.verdict,
    }


def _gain(returns: np.ndarray, filtering: np.ndarray) -> dict[str, float]:
    gain = returns - filtering
    low, high = mean_interval(gain)
    return {"gain": float(gain.mean()), "gain_low": low, "gain_high": high}


def _tuning_run(trial: Trial, results: Results) -> dict[str, Any]:
    result = results.get(trial)
    return {
        "table": trial.arm.table,
        "mode": trial.arm.mode,
        "loss": trial.arm.loss,
        "cql_weight": trial.cql_weight,
        "learning_rate": trial.learning_rate,
        "validation_return": None if result is None else result.validation_return,
    }


def _returns(trials: Sequence[Trial], results: Results) -> np.ndarray:
    return np.array([results[trial].never_seen_returns for trial in trials], dtype=np.float64)


def _solved(returns: np.ndarray) -> float:
    return float((returns > _UNSOLVED).mean())
