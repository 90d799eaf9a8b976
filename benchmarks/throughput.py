"""What online learning costs: the whole system beside a bare loop that does the same work.

Pong, DQN's network with 51 bins, batch 32, an update for every fourth step, double Q, two threads in all. Each loop is
a process of its own (`throughput_loops.py`) that runs when it is told to, for some seconds, in turns with the others.
Figures are medians over turns, beside wall time by CPU-second.

* ``vs_bare_loop_fp32``: our updates a second, each with its four steps, over the bare loop's; the same algorithm and
  precision.
* ``vs_bare_loop_best``: with channels last and products in bfloat16.
* ``acting_vs_bare``: the learner off, over emulators and a bare forward pass.
* ``vs_rllib_cartpole``: updates a second on CartPole over RLlib's DQN, the same replay ratio, one thread each.
* ``replay_share``: sampling and stacking, of an update's time. ``replay_gb_per_million``: bytes of a million steps.

The last line of output is one JSON object. What could not be measured is null there, with its reason under "absent".
``--record`` appends a row for each key to ``results/throughput.csv``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from federation import Findings, record
from harness import RESULTS, ROOT, describe_commit, describe_machine, describe_versions

LOOPS = Path(__file__).with_name("throughput_loops.py")
_WARMUP_SECONDS = 14.0
"""Until the replays hold enough to learn from, and processes have loaded what they need."""
_NOT_BUILT = "this benchmark does not run it yet"
_NO_GPU = "no CUDA device is here"


class Loop:
    """A process that learns when it is told to."""

    def __init__(self, name: str, errors: Path) -> None:
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        self._errors = errors / f"{name}.log"
        with self._errors.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(LOOPS), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )

    def go_on(self, seconds: float) -> dict[str, float]:
        """What it did in about so many seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                told: dict[str, float] = json.loads(line)
                return told
        raise RuntimeError(f"it ended: {self._errors.read_text()[-2000:]}")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def loops(names: Sequence[str], errors: Path) -> Iterator[dict[str, Loop]]:
    """Processes by name, ended at the end."""
    started: dict[str, Loop] = {}
    try:
        for name in names:
            started[name] = Loop(name, errors)
        yield started
    finally:
        for loop in started.values():
            loop.end()


def in_turns(names: Sequence[str], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """By name, median steps and updates a second and steps a CPU-second."""
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with loops(names, options.folder) as running:
        for loop in running.values():
            loop.go_on(_WARMUP_SECONDS)
        order = list(names)
        for _ in range(options.turns):
            for name in order:
                turns[name].append(running[name].go_on(options.seconds))
            order.append(order.pop(0))
    found = {
        name: {
            "steps_per_second": statistics.median(turn["steps"] / turn["seconds"] for turn in told),
            "updates_per_second": statistics.median(turn["updates"] / turn["seconds"] for turn in told),
            "steps_per_cpu_second": statistics.median(turn["steps"] / turn["cpu"] for turn in told),
        }
        for name, told in turns.items()
    }
    for name, figures in found.items():
        print(f"  {name}: " + "  ".join(f"{value:,.1f} {key}" for key, value in figures.items()), flush=True)
    return found


def replay_section(findings: Findings) -> None:
    """Sampling beside an update, and a million steps' bytes."""
    import torch
    from throughput_loops import MIN_REPLAY, SETTINGS, THREADS

    from isogon import load_config
    from isogon.actors.work import PolicyState
    from isogon.actors.worker import Worker
    from isogon.learners.learner import Exploration
    from isogon.schedulers.events import Assign, Token
    from isogon.system.builder import build_intake, build_learner, build_replay, build_spec, build_worker_spec
    from isogon.system.training.memory import replay_bytes

    torch.set_num_threads(THREADS)
    config = load_config("atari", [*SETTINGS, "replay.sampling=prioritised", "replay.n_step=3"])
    spec = build_spec(config)
    learner, replay = build_learner(config, spec), build_replay(config, spec)
    worker, intake = Worker(0, build_worker_spec(config, spec)), build_intake(config, replay)
    state = PolicyState(1, learner.policy_tensors(), Exploration(epsilon=1.0))
    sequence = 0
    while len(replay) < MIN_REPLAY:
        result = worker.run(Assign("env-0", Token(1, "env-0", sequence), "rollout", 512, 1), state)
        intake.add(result.payload, continues=sequence > 0)
        sequence += 1
    sampling, learning = [], []
    for _ in range(60):
        begun = time.perf_counter()
        batch = replay.next_batch(0.5)
        sampled = time.perf_counter()
        stats = learner.update(batch, 0.5)
        learnt = time.perf_counter()
        replay.update_priorities(batch["index"], stats.td_error)
        sampling.append(sampled - begun + time.perf_counter() - learnt)
        learning.append(learnt - sampled)
    million = load_config("atari", ["replay.capacity=1000000", "replay.sampling=prioritised"])
    findings.put(
        replay_share=statistics.median(sampling) / statistics.median(learning),
        replay_gb_per_million=replay_bytes(million, spec, million.actors.workers) / 1e9,
    )


def main() -> None:
    options = _parser().parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    findings = Findings()
    print("Pong, an update for every fourth step")
    learning = in_turns(["bare_loop", "isogon_fp32", "isogon_channels_last", "isogon_bf16"], options)
    # Play comes in pieces, updates one by one: over some seconds their number tells more exactly.
    updates = {name: figures["updates_per_second"] for name, figures in learning.items()}
    bare = updates.pop("bare_loop")
    findings.put(vs_bare_loop_fp32=updates["isogon_fp32"] / bare, vs_bare_loop_best=max(updates.values()) / bare)
    print("Pong, the learner off")
    acting = in_turns(["bare_acting", "isogon_acting"], options)
    findings.put(acting_vs_bare=acting["isogon_acting"]["steps_per_second"] / acting["bare_acting"]["steps_per_second"])
    print("CartPole")
    try:
        cartpole = in_turns(["rllib_cartpole", "isogon_cartpole"], options)
    except RuntimeError as error:
        cartpole = {}
        findings.miss(f"RLlib did not run: {str(error).splitlines()[-1]}", "vs_rllib_cartpole")
    else:
        findings.put(
            vs_rllib_cartpole=cartpole["isogon_cartpole"]["updates_per_second"]
            / cartpole["rllib_cartpole"]["updates_per_second"]
        )
    print("Replay, prioritised, three steps")
    replay_section(findings)
    findings.miss(_NOT_BUILT, "vs_cleanrl_fp32", "vs_rllib_c51_fp32")
    findings.miss(_NO_GPU, "gpu_steps_share", "gpu_learner_vs_bare", "gpu_card")
    for name, figures in {**learning, **acting, **cartpole}.items():
        findings.values |= {f"{name}_{key}": float(f"{value:.4g}") for key, value in figures.items()}
    summary: dict[str, Any] = {
        "benchmark": "throughput",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **describe_commit(ROOT),
        "machine": describe_machine(),
        "versions": describe_versions(),
        **findings.values,
        "absent": findings.absent,
    }
    if options.record:
        record(summary, findings.values, options.results)
    print(json.dumps(summary))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="of each loop")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "throughput", help="for logs")
    parser.add_argument("--record", action="store_true", help="append a row for each key to the results")
    parser.add_argument("--results", type=Path, default=RESULTS / "throughput.csv", help="where rows are appended")
    return parser


if __name__ == "__main__":
    main()
