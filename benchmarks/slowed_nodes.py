"""Play by unequal nodes: equal pieces behind a barrier, equal pieces as they come, and FedCompass's.

Four workers play MinAtar on Ray as on machines that take 1, 1.7, 4.3 and 8 ms a step: they sleep most of their time,
so that two cores are enough for all. A stand-in for a learner publishes ten versions a second and takes everything in.
The three schedulers are run in turns; of each turn the first seconds, while speeds are learnt, are left out.

The last line of output is one JSON object. ``--record`` appends it to ``results/slowed_nodes.jsonl`` and draws who
worked when into ``docs/images/slowed-nodes.svg``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any

from harness import RESULTS, ROOT, describe_commit, describe_machine, describe_versions

from isogon import load_config
from isogon.actors.pools.hosts import hosts_of_one
from isogon.actors.pools.ray_pool import RayPool
from isogon.actors.work import PolicyState
from isogon.actors.worker import WorkerSpec, worker_factories
from isogon.learners.learner import Exploration
from isogon.schedulers import CompassSplit, EqualSplit
from isogon.schedulers.events import Arrived, Assign, Command, Demand, Event
from isogon.schedulers.rollouts import RolloutScheduler
from isogon.system.builder import build_learner, build_spec, build_worker_spec
from isogon.system.config.run import RayConfig
from isogon.system.coordinate import Coordinator
from isogon.system.training.ray_session import ray_session

SLOWED = (1.0, 1.7, 4.3, 8.0)
_FASTEST_SECONDS = 0.001
_PIECE, _ENVS = 960, 8
_VERSIONS_A_SECOND = 10.0
_SETTLING_SECONDS = 8.0


class Barrier(EqualSplit):
    """Equal pieces, and nobody is given the next one before all have brought theirs."""

    def __init__(self, attempt: int, piece: int, workers: int) -> None:
        super().__init__(attempt, piece)
        self._all = workers
        self._asked = 0

    def handle(self, event: Event) -> list[Command]:
        """As `EqualSplit`, with demand let through a round at a time."""
        if isinstance(event, Demand):
            self._asked += event.amount
            return []
        commands = super().handle(event)
        idle = self._version is not None and len(self._workers) == self._all and not any(self._workers.values())
        if idle and self._asked > 0:
            round_ = self._piece * self._all
            self._asked -= round_
            commands += super().handle(Demand(event.time, round_))
        return commands


class Nothing:
    """A sink that keeps nothing."""

    def admit(self, result: Any, arrived: Arrived) -> Any:
        return result

    def commit(self, entries: list[Any]) -> None:
        return None

    def discard(self, result: Any) -> None: ...


def turn(make: Callable[[], RolloutScheduler], spec: WorkerSpec, tensors: Any, seconds: float) -> dict[str, Any]:
    """One scheduler's figures over so many seconds, and who worked when: ``(worker, begun, arrived)``."""
    begun = time.perf_counter()

    def clock() -> float:
        return time.perf_counter() - begun

    given: dict[Any, float] = {}
    spans: list[tuple[str, float, float, int, int]] = []

    def observe(now: float, what: Any) -> None:
        if isinstance(what, Assign):
            given[what.token] = now
        elif isinstance(what, Arrived):
            spans.append((what.worker, given[what.token], what.time, what.samples, version - what.version))

    version = 0
    pool = RayPool(hosts_of_one(worker_factories(spec, len(SLOWED)), max_restarts=0), clock=clock)
    with closing(pool):
        coordinator = Coordinator(make(), pool, Nothing(), clock, observer=observe)
        while coordinator.figures().workers < len(SLOWED):
            coordinator.step(0.1)
        start = clock()
        coordinator.demand(10**9)
        while clock() < start + seconds:
            if clock() - start >= version / _VERSIONS_A_SECOND:
                version += 1
                coordinator.publish(PolicyState(version, tensors, Exploration(epsilon=0.1)))
            coordinator.step(0.005)
    kept = [span for span in spans if span[2] - start >= _SETTLING_SECONDS]
    steps = sum(span[3] for span in kept)
    return {
        "steps_per_second": steps / (seconds - _SETTLING_SECONDS),
        "mean_age": sum(span[3] * span[4] for span in kept) / steps,
        "worst_age": max(span[4] for span in kept),
        "apart": apart([span[2] for span in kept], [span[0] for span in kept]),
        "spans": [(worker, one - start, other - start) for worker, one, other, _, _ in spans],
    }


def apart(times: list[float], workers: list[str]) -> float:
    """How far from each other a beat's arrivals are, as a share of the time between beats: the median over beats.

    A beat is the four arrivals nearest to one of the slowest worker's.
    """
    slowest = [at for at, worker in zip(times, workers, strict=True) if worker == f"env-{len(SLOWED) - 1}"]
    if len(slowest) < 3:
        return float("nan")
    period = statistics.median(later - sooner for sooner, later in pairwise(slowest))
    spreads = []
    for beat in slowest[1:-1]:
        near = [
            min((at for at, one in zip(times, workers, strict=True) if one == worker), key=lambda at: abs(at - beat))
            for worker in set(workers)
        ]
        spreads.append((max(near) - min(near)) / period)
    return statistics.median(spreads)


def draw(spans: dict[str, list[tuple[str, float, float]]], window: tuple[float, float]) -> None:
    """Who worked when, a row a worker, a panel a scheduler."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "isogon"
    figure, panels = pyplot.subplots(len(spans), 1, figsize=(7.2, 4.6), sharex=True, layout="constrained")
    for panel, (name, pieces) in zip(panels, spans.items(), strict=True):
        for row in range(len(SLOWED)):
            bars = [
                (begun, arrived - begun)
                for worker, begun, arrived in pieces
                if worker == f"env-{row}" and arrived > window[0] and begun < window[1]
            ]
            panel.broken_barh(bars, (-row - 0.4, 0.8), facecolor="#4c72b0", edgecolor="white", linewidth=0.8)
        panel.set(title=name, xlim=window, yticks=[-row for row in range(len(SLOWED))])
        panel.set_yticklabels([f"{factor:g}x slower" if factor > 1 else "fastest" for factor in SLOWED], fontsize=8)
        panel.title.set_fontsize(9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("seconds")
    figure.savefig(ROOT / "docs" / "images" / "slowed-nodes.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=32.0, help="of a turn")
    parser.add_argument("--turns", type=int, default=3, help="of each scheduler")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    steps = [_FASTEST_SECONDS * factor for factor in SLOWED]
    config = load_config(
        "minatar",
        [f"actors.envs_per_worker={_ENVS}", f"actors.workers={len(SLOWED)}", f"actors.seconds_per_step={steps}"],
    )
    spec = build_spec(config)
    worker_spec, tensors = build_worker_spec(config, spec), build_learner(config, spec).policy_tensors()
    schedulers: dict[str, Callable[[], RolloutScheduler]] = {
        "barrier": partial(Barrier, 1, _PIECE, len(SLOWED)),
        "as they come": partial(EqualSplit, 1, _PIECE),
        "compass": partial(CompassSplit, 1, _PIECE // 10, _PIECE, quantum=_ENVS),
    }
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in schedulers}
    with ray_session(RayConfig(address="local"), len(SLOWED), None):
        for number in range(options.turns):
            for name, make in schedulers.items():
                found = turn(make, worker_spec, tensors, options.seconds)
                turns[name].append(found)
                told = "  ".join(f"{key} {value:.3g}" for key, value in found.items() if key != "spans")
                print(f"turn {number + 1}, {name}: {told}", flush=True)
    medians = {
        name: {key: statistics.median(one[key] for one in found) for key in found[0] if key != "spans"}
        for name, found in turns.items()
    }
    together, own_way, barrier = medians["compass"], medians["as they come"], medians["barrier"]
    summary = {
        "benchmark": "slowed_nodes",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **describe_commit(ROOT),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "figures": medians,
        "compass_arrivals_apart": together["apart"],
        "compass_steps_vs_barrier": together["steps_per_second"] / barrier["steps_per_second"],
        "compass_steps_vs_as_they_come": together["steps_per_second"] / own_way["steps_per_second"],
        "compass_mean_age_vs_as_they_come": together["mean_age"] / own_way["mean_age"],
        "compass_worst_age_vs_as_they_come": together["worst_age"] / own_way["worst_age"],
    }
    if options.record:
        with (RESULTS / "slowed_nodes.jsonl").open("a") as file:
            file.write(json.dumps(summary) + "\n")
        draw({name: found[-1]["spans"] for name, found in turns.items()}, (_SETTLING_SECONDS, options.seconds))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
